"""Log lines that are written in company."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from actors.telemetry.line_file import LineFile
from tests.polling import until


def test_lines_wait_until_they_are_flushed(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "x.jsonl", linger_s=3600)
    file.write("one")
    file.write("two")
    assert (tmp_path / "x.jsonl").read_text() == ""
    file.flush()
    assert (tmp_path / "x.jsonl").read_text() == "one\ntwo\n"
    file.close()


def test_an_urgent_line_takes_those_before_it_along(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "x.jsonl", linger_s=3600)
    file.write("one")
    file.write("two", urgent=True)
    assert (tmp_path / "x.jsonl").read_text() == "one\ntwo\n"
    file.close()


async def test_lines_are_written_by_themselves(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "x.jsonl", linger_s=0.01)
    for number in range(3):
        file.write(f"line {number}")
        expected = "".join(f"line {n}\n" for n in range(number + 1))
        await until(lambda expected=expected: (tmp_path / "x.jsonl").read_text() == expected, 5)
    file.close()


def test_lines_of_many_threads_and_files_stay_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    files = [LineFile(path, linger_s=0.001) for _ in range(2)]

    def write(name: int) -> None:
        for number in range(300):
            files[name % 2].write(f"{name} {number} {'x' * 50}", urgent=number % 50 == 0)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    lines = path.read_text().splitlines()
    for name in range(4):
        own = [line for line in lines if line.startswith(f"{name} ")]
        assert own == [f"{name} {number} {'x' * 50}" for number in range(300)]
    assert len(lines) == 1200


def test_a_file_that_is_copied_and_truncated_goes_on_at_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    file = LineFile(path)
    file.write("old", urgent=True)
    os.truncate(path, 0)
    file.write("new", urgent=True)
    assert path.read_text() == "new\n"
    file.close()
    file.write("after the end")
    assert path.read_text() == "new\nafter the end\n"


def test_a_process_that_ends_leaves_no_line_behind(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from actors.telemetry.line_file import LineFile;"
        "LineFile(Path(sys.argv[1]), linger_s=3600).write('last words')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "x.jsonl")], check=True)
    assert (tmp_path / "x.jsonl").read_text() == "last words\n"
