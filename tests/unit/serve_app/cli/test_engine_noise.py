"""What engines print goes to a log; what the command prints arrives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import os, subprocess, sys
from pathlib import Path
from serve_app.cli.engine_noise import engine_noise_in
from serve_app.cli.output import Output
output = Output()
with engine_noise_in(Path(sys.argv[1]), output):
    print("noise by print"); print("noise on stderr", file=sys.stderr)
    os.write(1, b"noise by descriptor\\n")
    subprocess.run(["echo", "noise of a child"])
    output.json({"data": 1}); output.note("words"); output.line("line")
output.line("after"); print("free again"); os.write(1, b"free descriptor\\n")
"""


def play(log: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CODE, str(log)], capture_output=True, text=True, timeout=60)


def test_noise_goes_to_the_log_and_output_does_not(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "direct.log"
    done = play(log)
    assert sorted(done.stdout.splitlines()) == sorted(
        ['{"data": 1}', "line", "after", "free again", "free descriptor"]
    )
    assert done.stderr == "words\n"
    noise = ["noise by descriptor", "noise by print", "noise of a child", "noise on stderr"]
    assert sorted(log.read_text().splitlines()) == noise
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_written_silences_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = play(tmp_path / "file" / "direct.log")
    assert "noise" not in done.stdout + done.stderr and done.returncode == 0
