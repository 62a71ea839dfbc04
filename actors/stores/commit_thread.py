"""The thread that writes: one connection, one lock, as many writes a commit as have come meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from actors.stores.file_lock import FileLock
from actors.stores.group_commit import commit_together
from actors.stores.sqlite_connection import SqliteConnection, SqliteFile, client_error
from actors.stores.store_faults import FaultLog, broken_write


@dataclass(slots=True)
class PendingWrite:
    """A transaction's work and whoever waits for it; ``is_wanted`` says whether somebody still does."""

    work: Callable[[Any], Any]
    answer: Any
    is_wanted: Callable[[], bool]


Settle = Callable[[Sequence[PendingWrite], Sequence[Any]], None]


class CommitThread:
    """Takes writes from any thread; ``settle`` is called here with a group and its outcomes after the commit.

    The group is formed once the lock is held: what came while others committed goes with it. A write that
    nobody wants any more when its turn comes is left out, so that a caller who gave up waiting knows that
    nothing happens later.
    """

    def __init__(self, file: SqliteFile, name: str, settle: Settle, faults: FaultLog) -> None:
        self._file = file
        self._faults = faults
        self._connection = SqliteConnection(file)
        self._settle = settle
        self._waiting: SimpleQueue[PendingWrite | None] = SimpleQueue()
        # A daemon: a process that is stopped while it holds the lock must not keep this one from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, write: PendingWrite) -> None:
        """Hand in; answered by ``settle``."""
        self._waiting.put(write)

    def close(self, timeout_s: float) -> None:
        """Finish what was handed in, then let go; blocks at most ``timeout_s``."""
        self._waiting.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        lock: FileLock | None = None
        last = False
        while not last:
            first = self._waiting.get()
            if first is None:
                break
            group = [first]
            try:
                lock = lock or FileLock(self._file.path)
                with lock:
                    last = self._join(group)
                    group = [write for write in group if write.is_wanted()]
                    outcomes = commit_together(self._connection.transact, [write.work for write in group])
            except OSError as error:
                outcomes = [client_error(error, self._file.path)] * len(group)
            except BaseException as error:  # noqa: BLE001 - whoever waits must not wait for ever
                outcomes = [broken_write(error)] * len(group)
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    self._faults.tell(outcome)
            self._settle(group, outcomes)
        self._connection.close()
        if lock is not None:
            lock.close()

    def _join(self, group: list[PendingWrite]) -> bool:
        """Add what waits; whether the end was among it."""
        try:
            while True:
                write = self._waiting.get_nowait()
                if write is None:
                    return True
                group.append(write)
        except Empty:
            return False
