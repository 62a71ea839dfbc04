"""One engine starts at a time on a machine: two at once need twice the memory and time out together."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

_POLL_S = 0.1
_FILE = "engine_start.lock"


@asynccontextmanager
async def start_turn(home: str) -> AsyncGenerator[None, None]:
    """Hold this machine's turn, a lock in PARLEY_HOME; the kernel frees it when the process dies."""
    handle = _open(home)
    try:
        # flock tells nobody when it is free, and a wait in a thread could not be cancelled
        while not _taken(handle):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        yield
    finally:
        os.close(handle)


def _open(home: str) -> int:
    folder = Path(home).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
