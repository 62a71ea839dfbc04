"""A full disk under running engines: new runs are refused, held ones wait, and go on when there is room."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from actors.stores.open_store import open_store
from actors.stores.records import CheckpointRow
from actors.stores.store import Store
from registries.contracts.errors import StoreFull
from registries.contracts.runs import TERMINAL_STATUSES
from tests.chaos.engine.checker import TENANT, calls_in, problems_of
from tests.chaos.engine.runs import config_for, new_run, reference_result, run_id_of, spec_for
from tests.chaos.engine.scale import scaled
from tests.chaos.engine.stage import all_ended, engines
from tests.polling import until

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(scaled(150, 400))]
PAGES = scaled(3_000, 20_000)
"""Room for all the runs without the ballast: else the disk is full of them, and no dropping lets them go."""
PAGE_BYTES = 4096
RUNS, TIMES, FULL_S = scaled(60, 300), scaled(1, 4), scaled(4.0, 15.0)
_BALLAST = "ballast"


async def _fill(store: Store) -> None:
    """Take up all room, the last page too, in few commits: each of them queues behind the engines'."""
    pieces, size = 0, PAGES * PAGE_BYTES // 4
    while size:
        row = CheckpointRow(_BALLAST, "", f"{pieces:08d}", None, "bytes", b"x" * size, b"{}")
        try:
            await store.keep([row], [])
            pieces += 1
        except StoreFull:
            size //= 4


async def _statuses(store: Store, run_ids: list[str]) -> list[str]:
    runs: list[dict[str, Any] | None] = [await store.get(run_id, TENANT) for run_id in run_ids]
    return [run["status"] if run is not None else "lost" for run in runs]


async def _stuck(store: Store, run_ids: list[str]) -> list[str]:
    """The statuses once they stay: what has room left in its last page is still written."""
    found: list[str] = []

    async def unchanged() -> bool:
        nonlocal found
        before, found = found, await _statuses(store, run_ids)
        return found == before

    try:
        await until(unchanged, 15, every_s=1.0)
    except TimeoutError:
        raise AssertionError(f"something is written on a full disk: {found}") from None
    return found


async def test_a_full_disk_refuses_and_holds_and_lets_go(tmp_path: Path) -> None:
    reference = await reference_result(tmp_path / "reference")
    path = tmp_path / "full" / "runs.db"
    config = config_for(tmp_path / "full", store_url=f"sqlite://{path}?max_page_count={PAGES}", max_deaths=3)
    store = await open_store(config)
    run_ids: list[str] = []
    # The fewer runs, the longer their calls: they must not be over before the last page is taken.
    async with engines(spec_for(config, call_s=scaled(0.4, 0.2)), 2) as stage:
        for turn in range(TIMES):
            numbers = range(turn * RUNS, (turn + 1) * RUNS)
            run_ids += [(await store.accept(new_run(number))).run_id for number in numbers]
            ended = RUNS * turn
            await until(lambda n=ended: len(calls_in(stage.journal)) > 4 * n + 10, 30)
            await _fill(store)
            refused = run_id_of(90_000 + turn)
            with pytest.raises(StoreFull) as caught:
                await store.accept(new_run(90_000 + turn, metadata={"k": "x" * 20_000}))
            assert caught.value.retry_after_s
            assert await store.get(refused, TENANT) is None
            await asyncio.sleep(FULL_S)
            stuck = await _stuck(store, run_ids)
            assert any(status not in TERMINAL_STATUSES for status in stuck), "nothing had to wait"
            assert "failed" not in stuck
            await store.drop_threads([_BALLAST])
            await all_ended(store, run_ids, scaled(60, 120))
        assert (stage.kills, stage.started) == (0, 2), "an engine ended"
    problems = await problems_of(store, run_ids, reference, stage.journal)
    await store.close()
    assert not problems, "\n".join(problems[:20])
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA page_count").fetchone()[0] <= PAGES
    connection.close()
