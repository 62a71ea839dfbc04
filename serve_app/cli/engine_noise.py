"""Engines in this process print logs and progress bars; what a command prints is its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

from serve_app.cli.output import Output

_STDOUT, _STDERR = 1, 2


@contextmanager
def engine_noise_in(log: Path, output: Output) -> Iterator[None]:
    """Until the block ends everything but ``output`` goes to the log, child processes included."""
    with ExitStack() as stack:
        file = stack.enter_context(_open(log))
        output.use(_kept(sys.stdout, _STDOUT, stack), _kept(sys.stderr, _STDERR, stack))
        stack.callback(output.use, None, None)
        for descriptor in (_STDOUT, _STDERR):
            saved = os.dup(descriptor)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, descriptor)
            os.dup2(file.fileno(), descriptor)
        stack.enter_context(redirect_stdout(file))
        stack.enter_context(redirect_stderr(file))
        yield


def _open(log: Path) -> TextIO:
    """The log, for its owner alone; nowhere when it cannot be written."""
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", buffering=1)


def _kept(stream: TextIO, descriptor: int, stack: ExitStack) -> TextIO:
    """The stream as it is now, also after its descriptor points elsewhere."""
    stream.flush()
    try:
        same = stream.fileno() == descriptor
    except (OSError, ValueError):
        same = False
    if not same:
        return stream
    return stack.enter_context(os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="replace"))
