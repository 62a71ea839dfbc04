"""Progress on terminals and in pipes; interruptions and closed pipes end a command well."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console

from registries.contracts.errors import CapacityError
from serve_app.cli.guard import guard
from serve_app.cli.output import LineProgress, LiveProgress, Output


def test_in_a_pipe_an_activity_is_one_line_however_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    with output.progress() as progress:
        assert isinstance(progress, LineProgress)
        for second in range(5):
            progress.doing(f"loading nano-m ({second} s)")
        progress.say("it is there")
        progress.doing("loading nano-s (6 s)")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["loading nano-m …", "it is there", "loading nano-s …"]


def test_on_a_terminal_facts_stay_and_markup_is_text() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    with LiveProgress(console) as progress:
        progress.doing("loading [bold]x[/bold] (1 s)")
        progress.say("[red]fact[/red]\x1b[2J")
    assert "[red]fact[/red]" in screen.getvalue() and "\x1b[2J" not in screen.getvalue()


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (CapacityError("full", None, 1.5), 1, "error: full (try again in 1.5 s)"),
        (ZeroDivisionError("secret detail"), 1, "a fault in parley itself (ZeroDivisionError)"),
    ],
)
def test_the_guard_gives_words_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    with pytest.raises(typer.Exit) as caught, guard(Output(), lambda: None):
        raise error
    captured = capsys.readouterr()
    assert caught.value.exit_code == code and words in captured.err
    assert "secret detail" not in captured.err


def test_a_crash_log_that_cannot_be_written_is_no_second_fault(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(typer.Exit), guard(Output(), lambda: tmp_path / "file" / "crash.log"):
        raise ZeroDivisionError
    assert "crash.log" not in capsys.readouterr().err


def test_a_reader_who_goes_away_is_no_error() -> None:
    code = (
        "import typer\nfrom serve_app.cli.guard import guard\nfrom serve_app.cli.output import Output\n"
        "def main():\n    with guard(Output(), lambda: None):\n"
        "        for _ in range(100_000): Output().json({'a': 'x' * 100})\n"
        "typer.run(main)\n"
    )
    script = f'{sys.executable} -c "$0" | head -n 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script, code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith('{"a"') and "Traceback" not in done.stderr
