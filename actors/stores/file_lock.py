"""A lock between processes that wakes whoever waits, in turn, and that a killed holder gives back."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType


class FileLock:
    """``with lock:`` by flock(2) on ``<path>.lock``; blocks without end while another process holds it.

    SQLite's own busy handler sleeps up to 100 ms between two looks; here a waiter runs as soon as the lock is
    free. The kernel does not hand a lock over: a process that lets go and asks again at once would take it
    from those it has just woken. So one queues for ``<path>.turn`` first, and holds it until it has the lock.
    One object belongs to one thread. Raises OSError when the files cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._turn = _open(path.with_name(path.name + ".turn"))
        try:
            self._lock = _open(path.with_name(path.name + ".lock"))
        except OSError:
            os.close(self._turn)
            raise

    def __enter__(self) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the files back, and the lock where it is held."""
        os.close(self._turn)
        os.close(self._lock)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
