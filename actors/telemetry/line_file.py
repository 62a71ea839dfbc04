"""A file of log lines that several processes append to, a few lines at a time."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from pathlib import Path

LINGER_S = 0.05
"""How long a line waits for company: a write for each is dear where there are hundreds a second."""


class LineFile:
    """Lines from any thread, in their order; each write appends whole lines, whoever else appends.

    A line is in the file after ``LINGER_S``, after ``flush``, or at once where it is ``urgent``, with all
    before it; a process that is killed loses those that still wait. A disk that takes nothing loses lines,
    and nobody is told: there is no better place to say so than here. Raises OSError when the file cannot be
    opened.
    """

    def __init__(self, path: Path, linger_s: float = LINGER_S) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._linger_s = linger_s
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._some = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        atexit.register(self.flush)

    def write(self, line: str, urgent: bool = False) -> None:
        """Take one line, without its end; never raises."""
        with self._lock:
            self._lines.append(line)
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
                self._thread.start()
        if urgent or self._closed.is_set():
            self.flush()
        elif not self._some.is_set():
            self._some.set()

    def flush(self) -> None:
        """Write what waits; returns when it is in the file."""
        with self._writing:
            with self._lock:
                lines, self._lines = self._lines, []
            if lines:
                data = memoryview(("\n".join(lines) + "\n").encode("utf-8", errors="backslashreplace"))
                with contextlib.suppress(OSError):
                    while data:
                        data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        """Write what waits and let go of the thread; later lines are written at once. Idempotent."""
        self._closed.set()
        self._some.set()
        self.flush()
        atexit.unregister(self.flush)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._some.wait()
            self._closed.wait(self._linger_s)
            # Before the lines are taken: one that comes while they are written asks for another round.
            self._some.clear()
            self.flush()
