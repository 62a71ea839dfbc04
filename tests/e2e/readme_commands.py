"""The README's shell commands, and how each of them is run by the tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
How = Literal["session", "dry", "own_model", "own_url", "scratch", "stop"]

# `make test` and `make check` are what runs this file, `make bench` is minutes of measuring: that they are
# there and what they would do is checked by make itself. Everything else is typed as the README has it.
_DRY = ("make test", "make check", "make bench")


class Command(NamedTuple):
    """One line of a bash block, without its trailing comment."""

    text: str
    how: How


def readme_commands() -> list[Command]:
    """Every command of the README in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return [
        Command(text, classify(text)) for text in (re.sub(r"\s{2,}#.*$|\s#\s.*$", "", line) for line in lines)
    ]


def classify(text: str) -> How:
    """How a line is run: in the common session unless it says otherwise."""
    if text.startswith(_DRY):
        return "dry"
    if text == "make stop":
        return "stop"
    if text.startswith("parley up") and "--model-url" in text:
        return "own_url"
    if text.startswith("parley up"):
        return "own_model"
    return "scratch" if ">> .env" in text else "session"
