"""The command: one message, one exit status, never a stack trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.evaluation.__main__ import NO_RUNTIME, WRONG_INPUT, main, print_line

ARGUMENTS = ["--dataset", "arithmetic_heldout", "--out", "out", "--flow", "challenge"]


def test_without_a_runtime_it_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ARGUMENTS, "--config", str(tmp_path / "none.json")]) == NO_RUNTIME
    captured = capsys.readouterr()
    assert "parley up" in captured.err
    assert "Traceback" not in captured.err


def test_wrong_options_are_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "--concurrency", "0"]) == WRONG_INPUT
    assert "--concurrency 0" in capsys.readouterr().err


def test_lines_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("evaluation: 1/2 items")
    assert capsys.readouterr().out == "evaluation: 1/2 items\n"
