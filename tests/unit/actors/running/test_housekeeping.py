from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from actors.outputs import artifact_path, outputs_root
from actors.running.housekeeping import Housekeeping
from actors.stores.open_store import open_store
from registries.contracts.config import RetentionConfig, RuntimeConfig
from registries.contracts.errors import StoreError
from tests.polling import until


class FaultyPruning:
    async def turn(self, job: str, every_s: float) -> bool:
        raise StoreError("the turns are away")


async def test_no_fault_is_the_end_of_it_and_no_pruning_keeps_backups_away() -> None:
    faults = [StoreError("away"), OSError("the folder is gone")]
    made: list[str] = []

    async def back_up() -> None:
        if faults:
            raise faults.pop()
        made.append("backup")

    config = RuntimeConfig(home="/nowhere", retention=RetentionConfig(every_s=0.01))
    work = asyncio.create_task(Housekeeping(FaultyPruning(), config, back_up).run())  # type: ignore[arg-type]
    await until(lambda: bool(made), 10)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert not faults


@pytest.mark.parametrize("runs_days", [1.0, 0.0])
async def test_results_are_kept_as_long_as_their_runs(tmp_path: Path, runs_days: float) -> None:
    """0 keeps all for ever. Files that are not ours stay in any case."""
    config = RuntimeConfig(home=str(tmp_path), retention=RetentionConfig(runs_days=runs_days))
    old, new = (artifact_path(outputs_root(config), "linear", name) for name in ("run-old", "run-new"))
    notes = old.with_name("notes.txt")
    old.parent.mkdir(parents=True)
    two_days_ago = time.time() - 2 * 86_400
    for path in (old, new, notes):
        path.write_text("{}")
    for path in (old, notes):
        os.utime(path, (two_days_ago, two_days_ago))
    store = await open_store(config)
    try:
        await Housekeeping(store, config, _no_backup).prune()
    finally:
        await store.close()
    assert old.exists() == (runs_days == 0)
    assert new.exists() and notes.exists()


async def _no_backup() -> None:
    return
