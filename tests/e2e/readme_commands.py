"""The README's shell commands, and how each of them is run by the tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
How = Literal["session", "dry", "own_model", "own_url", "scratch", "stop"]

# `make test` and `make check` are what runs this file, `make bench` and `make chaos` take many minutes: that
# they are there and what they would do is checked by make itself. All else is typed as the README has it.
_DRY = ("make test", "make check", "make bench", "make chaos")
_COMMENT = re.compile(r"\s{2,}#.*$|\s#\s.*$")
_EXIT = re.compile(r"#.*\bexit code (\d+)")


class Command(NamedTuple):
    """One line of a bash block, without its trailing comment; ``exit_code`` is what that comment promises."""

    text: str
    how: How
    exit_code: int = 0


def readme_commands() -> list[Command]:
    """Every command of the README in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [_command(line) for block in blocks for line in block.splitlines() if line.strip()]


def commands(how: How) -> list[Command]:
    """Those that are run in one way."""
    return [command for command in readme_commands() if command.how == how]


def classify(text: str) -> How:
    """How a line is run: in the common session unless it says otherwise."""
    if text.startswith(_DRY):
        return "dry"
    if text == "make stop":
        return "stop"
    if text.startswith("parley up --model-url"):
        return "own_url"
    if text.startswith("parley up --model"):
        return "own_model"
    return "scratch" if ">> .env" in text else "session"


def _command(line: str) -> Command:
    text = _COMMENT.sub("", line)
    promised = _EXIT.search(line)
    return Command(text, classify(text), int(promised[1]) if promised else 0)
