from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from actors.stores.file_lock import FileLock


def test_one_holder_at_a_time_also_within_a_process(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "d", 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        lock = FileLock(path)
        for _ in range(200):
            with lock:
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1
        lock.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1 and not any(thread.is_alive() for thread in threads)


def test_who_waits_comes_before_who_asks_again(tmp_path: Path) -> None:
    path, greedy = tmp_path / "d", FileLock(tmp_path / "d")
    order: list[str] = []
    began = threading.Event()

    def wait() -> None:
        lock = FileLock(path)
        began.set()
        with lock:
            order.append("waiting")
        lock.close()

    with greedy:
        thread = threading.Thread(target=wait)
        thread.start()
        began.wait(5)
        # It queues for its turn in the kernel now; nothing tells us so but that it holds the turn.
        turn = os.open(path.with_name("d.turn"), os.O_RDWR)
        while _is_free(turn):
            pass
        os.close(turn)
    for _ in range(3):
        with greedy:
            order.append("greedy")
    thread.join(5)
    greedy.close()
    assert order == ["waiting", "greedy", "greedy", "greedy"]


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _hold(path: Path, told: Connection) -> None:
    with FileLock(path):
        told.send("held")
        signal.pause()


def test_a_killed_holder_gives_it_back(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=_hold, args=(tmp_path / "d", theirs))
    holder.start()
    assert ours.poll(30) and ours.recv() == "held"
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(10)
    with FileLock(tmp_path / "d"):
        pass


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        FileLock(tmp_path / "missing" / "d")
