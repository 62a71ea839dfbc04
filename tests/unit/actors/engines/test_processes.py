from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors.engines.process_tree import children_of, end_processes
from actors.engines.start_turn import start_turn

SLEEP = "import time; time.sleep(60)"
SPAWNS = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', '{SLEEP}']); "
UP_THEN_SLEEP = "print('up', flush=True); time.sleep(60)"


async def test_turns_come_one_after_another(tmp_path: Path) -> None:
    log: list[str] = []

    async def start(name: str) -> None:
        async with start_turn(str(tmp_path)):
            log.append(f"{name} in")
            await asyncio.sleep(0.01)
            log.append(f"{name} out")

    await asyncio.gather(*(start(name) for name in "abc"))
    assert [entry.split()[1] for entry in log] == ["in", "out"] * 3


async def test_a_turn_is_given_back_when_its_holder_fails_or_is_cancelled(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with start_turn(str(tmp_path)):
            raise ZeroDivisionError
    async with start_turn(str(tmp_path)):
        waiting = asyncio.create_task(_take(tmp_path))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await asyncio.wait_for(_take(tmp_path), 5)


async def _take(home: Path) -> None:
    async with start_turn(str(home)):
        pass


def test_children_and_their_children_end(tmp_path: Path) -> None:
    before = children_of(os.getpid())
    parent = subprocess.Popen(
        [sys.executable, "-c", SPAWNS + UP_THEN_SLEEP],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    ours = children_of(os.getpid()) - before
    assert len(ours) == 2
    assert end_processes(ours) == []
    assert not any(process.is_running() for process in ours)
    assert end_processes(ours) == []
    parent.wait()


def test_a_process_that_ignores_the_signal_is_killed() -> None:
    code = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {UP_THEN_SLEEP}"
    stubborn = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    ours = {process for process in children_of(os.getpid()) if process.pid == stubborn.pid}
    assert end_processes(ours, grace_s=0.2) == [stubborn.pid]
    stubborn.wait()


def test_a_process_that_is_gone_has_no_children() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert children_of(ended.pid) == set()


def test_a_watcher_ends_with_the_process_that_it_watches() -> None:
    watched = subprocess.Popen([sys.executable, "-c", SLEEP])
    code = f"from actors.engines.parent_watch import end_with; end_with({watched.pid})"
    watcher = subprocess.Popen([sys.executable, "-c", code])
    with pytest.raises(subprocess.TimeoutExpired):
        watcher.wait(timeout=1)
    watched.kill()
    assert watcher.wait(timeout=10) == 1
    watched.wait()


def test_a_watcher_of_nobody_ends_at_once() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    code = f"from actors.engines.parent_watch import end_with; end_with({ended.pid})"
    assert subprocess.run([sys.executable, "-c", code], timeout=10).returncode == 1
