"""Runs that the store itself ends are told, so that somebody counts them."""

from __future__ import annotations

from pathlib import Path

from actors.stores.open_store import open_store
from registries.contracts.config import RuntimeConfig
from registries.contracts.runs import RunResult
from tests.conformance.stores.sample_runs import LONG_S, WAITING, new_run, take, write


async def test_runs_that_nobody_held_are_told_when_they_end(tmp_path: Path) -> None:
    told: list[RunResult] = []
    store = await open_store(RuntimeConfig(home=str(tmp_path)), on_ended=told.append)
    try:
        await store.accept(new_run("alone", deadline_s=0.0))
        assert await store.claim("alone", "o", LONG_S, 3) is None
        await store.accept(new_run("late", deadline_s=0.0))
        assert await store.claim_next("o", LONG_S, 3, 1) == []
        await take(store, "dead", ttl_s=0.0)
        assert await store.claim_next("other", LONG_S, 1, 5) == []
        await store.accept(new_run("queued"))
        assert await store.cancel("queued", "default") == "cancelled"
        waiting = await take(store, "asks")
        await store.wait(waiting.lease, WAITING, write(waiting.lease, 2, "run.waiting"))
        assert await store.cancel("asks", "default") == "cancelled"
        await take(store, "held")
        assert await store.cancel("held", "default") == "running", "its runner tells of this one"
    finally:
        await store.close()
    ends = {result.run_id: (result.status, result.error.code if result.error else "") for result in told}
    assert ends == {
        "late": ("failed", "budget_exceeded"),
        "alone": ("failed", "budget_exceeded"),
        "dead": ("failed", "runner_died"),
        "queued": ("cancelled", "cancelled"),
        "asks": ("cancelled", "cancelled"),
    }
    assert len(told) == len(ends)
