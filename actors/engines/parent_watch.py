"""Engine processes that end with their parent, even when the parent is killed and cannot tell them."""

from __future__ import annotations

import os
import threading
import time

import psutil

_POLL_S = 0.5


class ParentWatch:
    """Mixed into vLLM's worker by name (``worker_extension_cls``); called through its collective_rpc.

    vLLM's processes wait for messages for ever when their frontend is killed, and keep their memory.
    """

    def watch_parent(self, pid: int) -> int:
        """From now on this process ends when process ``pid`` does; returns its own pid."""
        threading.Thread(target=end_with, args=(pid,), name="parent-watch", daemon=True).start()
        return os.getpid()


def end_with(pid: int) -> None:
    """Block until the process is gone, then end this one at once."""
    try:
        parent = psutil.Process(pid)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_POLL_S)
    except psutil.NoSuchProcess:
        pass
    os._exit(1)
