"""The two streams of a command: data on stdout, words for the person on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text

from serve_app.cli.terminal_text import harmless


class Output:
    """Data and progress. Nothing that comes from a model or server is taken for markup or escapes."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.use(None, None)

    def use(self, out: TextIO | None, err: TextIO | None) -> None:
        """Write there from now on; None means whatever sys.stdout and sys.stderr are."""
        self._out = _console(out)
        self._err = _console(err, stderr=True)

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads stdout."""
        return self._out.is_terminal

    def line(self, text: str = "", style: str = "") -> None:
        """One line of data."""
        self._out.print(Text(harmless(text), style=style))

    def words(self, text: str, style: str = "") -> None:
        """A piece of a line, shown at once."""
        self._out.print(Text(harmless(text), style=style), end="")
        self._out.file.flush()

    def json(self, value: Mapping[str, Any] | list[Any]) -> None:
        """One JSON value on one line (NDJSON where there are several)."""
        self._out.file.write(json.dumps(value, ensure_ascii=True) + "\n")
        self._out.file.flush()

    def note(self, text: str, style: str = "") -> None:
        """A line for the person."""
        self._err.print(Text(harmless(text), style=style))

    def error(self, text: str) -> None:
        """What went wrong."""
        self._err.print(Text.assemble(("error: ", "bold red"), harmless(text)))

    def progress(self) -> LineProgress | LiveProgress:
        """A display that fits the terminal; use it as a context manager."""
        return LiveProgress(self._err) if self._err.is_terminal else LineProgress(self)


def _console(file: TextIO | None, *, stderr: bool = False) -> Console:
    return Console(file=file, stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


class LineProgress:
    """Plain lines, for logs and pipes: a new activity is a new line, its seconds are not."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last = ""

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, text: str) -> None:
        """A fact."""
        self._output.note(text)

    def doing(self, text: str) -> None:
        """An activity; what is in brackets at the end may change without a new line."""
        activity = text.split(" (")[0]
        if activity != self._last:
            self._last = activity
            self._output.note(f"{activity} …")


class LiveProgress:
    """One moving line, and facts above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = Status("", console=console)

    def __enter__(self) -> LiveProgress:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def say(self, text: str) -> None:
        """A fact."""
        self._console.print(Text(harmless(text)))

    def doing(self, text: str) -> None:
        """An activity."""
        self._status.update(Text(harmless(text)))


def silence_broken_pipe() -> None:
    """`parley … | head` is no error: let Python's exit flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
