"""An engine that is stopped past its lease and comes back writes nothing and starts nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from actors.outputs import outputs_root
from actors.stores.open_store import open_store
from registries.contracts.config import RuntimeConfig
from tests.chaos.engine.checker import TENANT, calls_in, problems_of
from tests.chaos.engine.process import EngineSpec
from tests.chaos.engine.runs import config_for, new_run, reference_result, spec_for
from tests.chaos.engine.stage import all_ended, engines
from tests.polling import until

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]
RUNS = 4


def freeze(pid: int) -> None:
    """SIGSTOP; returns when every thread has stopped.

    Not when the process is shown as stopped, which its first thread is enough for: another one that waits for
    a lock would still take it, and keep it, when it is given back a moment later.
    """
    os.kill(pid, signal.SIGSTOP)
    while any(thread_state(task) != "T" for task in Path(f"/proc/{pid}/task").iterdir()):
        time.sleep(0.001)


def thread_state(task: Path) -> str:
    """One letter, as proc(5) has it after the name, in which anything may stand."""
    return task.joinpath("stat").read_text().rpartition(") ")[2][0]


def freeze_between_acts(pid: int, spec: EngineSpec, config: RuntimeConfig) -> None:
    """While no call is just beginning (see WatchedKeeper), and, on SQLite, while it neither has nor awaits
    the lock that orders all writers (see the last test)."""
    writers = () if config.store_url else (lock_file(config, "turn"), lock_file(config, "lock"))
    with ExitStack() as held:
        for path in (*writers, spec.begins_lock):
            file = held.enter_context(open(path, "r+"))
            fcntl.flock(file, fcntl.LOCK_EX)
        freeze(pid)


def outputs_of(config: RuntimeConfig) -> dict[str, str]:
    """The results' files by run."""
    return {path.stem: path.read_text() for path in outputs_root(config).glob("*_flows/*.json")}


def lock_file(config: RuntimeConfig, name: str) -> Path:
    """See actors.stores.file_lock."""
    return Path(config.home) / f"parley.db.{name}"


@pytest.mark.parametrize(
    ("flow", "backend_settings"),
    [
        ("challenge", "sqlite"),
        ("challenge", "postgresql"),
        ("multi_perspective", "sqlite"),
        ("multi_perspective", "postgresql"),
    ],
    indirect=["backend_settings"],
)
async def test_a_zombie_writes_nothing_and_starts_nothing(
    tmp_path: Path, flow: str, backend_settings: dict[str, Any]
) -> None:
    reference = await reference_result(tmp_path / "reference", flow)
    config = config_for(tmp_path / "zombie", **backend_settings)
    store = await open_store(config)
    run_ids = [(await store.accept(new_run(n, flow))).run_id for n in range(RUNS)]
    async with engines(spec_for(config, call_s=0.2, uneven=True), 1) as stage:
        await until(lambda: len({call["call"] for call in calls_in(stage.journal)}) >= RUNS, 20)
        zombie = stage.engines[0]
        assert zombie.pid is not None
        freeze_between_acts(zombie.pid, stage.spec, config)
        try:
            stage.wanted = 2
            await all_ended(store, run_ids, 60)
            before = [await store.events(run_id, TENANT) for run_id in run_ids]
            written = len(calls_in(stage.journal))
            # A file comes into place after the commit of its run's end.
            await until(lambda: outputs_of(config).keys() == set(run_ids), 10)
            files = outputs_of(config)
        finally:
            os.kill(zombie.pid, signal.SIGCONT)
        # Long enough for calls that were in flight to end and for a next node, had it been allowed, to begin.
        await asyncio.sleep(1.5)
        begun = [c for c in calls_in(stage.journal)[written:] if c["what"] == "begin"]
        assert begun == [], "the zombie began a call after it came back"
        assert [await store.events(run_id, TENANT) for run_id in run_ids] == before
        assert files.keys() == set(run_ids) and outputs_of(config) == files
        assert (stage.kills, stage.started) == (0, 2)
        # It lives, and is of use again.
        for engine in stage.engines:
            if engine.pid != zombie.pid:
                engine.kill()
        stage.wanted = 1
        late = (await store.accept(new_run(RUNS, flow))).run_id
        await all_ended(store, [late], 30)
    assert await problems_of(store, [*run_ids, late], reference, stage.journal) == []
    await store.close()


async def test_one_that_is_stopped_inside_a_commit_on_sqlite_holds_up_writers_and_loses_nothing(
    tmp_path: Path,
) -> None:
    """What SQLite cannot do: nobody takes its lock from a process that lives. Reads go on meanwhile."""
    reference = await reference_result(tmp_path / "reference")
    config = config_for(tmp_path / "zombie")
    store = await open_store(config)
    run_ids = [(await store.accept(new_run(n))).run_id for n in range(200)]
    async with engines(spec_for(config, call_s=0.001), 1) as stage:
        await until(lambda: len(calls_in(stage.journal)) > 20, 20)
        (zombie,) = stage.engines
        assert zombie.pid is not None
        with open(lock_file(config, "lock"), "r+") as lock:
            while True:
                freeze(zombie.pid)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    break
                fcntl.flock(lock, fcntl.LOCK_UN)
                os.kill(zombie.pid, signal.SIGCONT)
                await asyncio.sleep(0.003)
        late = asyncio.create_task(store.accept(new_run(200)))
        assert (await store.queue()).running > 0
        done, _ = await asyncio.wait({late}, timeout=1.0)
        assert not done
        # Its end is what frees the database: no transaction of its own survives it.
        zombie.kill()
        assert (await late).created
        await all_ended(store, [*run_ids, "run-00200"], 60)
    assert await problems_of(store, [*run_ids, "run-00200"], reference, stage.journal) == []
    await store.close()
