from __future__ import annotations

import asyncio

from actors.running.housekeeping import Housekeeping
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
