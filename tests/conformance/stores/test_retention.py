"""What retention removes and what it keeps, on every backend."""

from __future__ import annotations

import asyncio

from actors.stores.open_store import open_store
from actors.stores.records import Pruned, RunFilter
from actors.stores.store import Store
from registries.contracts.config import RetentionConfig, RuntimeConfig
from registries.contracts.runs import Feedback
from tests.conformance.stores.sample_runs import checkpoint, end, key, new_run, status_of, take, task_write
from tests.polling import until

AT_ONCE_DAYS = 1e-12
"""A policy for which everything that ended is old, as soon as the clock has moved on."""
RUNS = RetentionConfig(runs_days=AT_ONCE_DAYS, checkpoints_days=0)
STATES = RetentionConfig(runs_days=0, checkpoints_days=AT_ONCE_DAYS)


async def with_states(store: Store, run_id: str) -> None:
    names = ("c1", "c2", "c3")
    await store.keep([checkpoint(run_id, n) for n in names], [task_write(run_id, n) for n in names])


async def kept(store: Store, thread_id: str) -> list[tuple[str, int]]:
    return [(row.checkpoint_id, len(writes)) for row, writes in await store.checkpoints(thread_id)]


async def prune_all(store: Store, policy: RetentionConfig, limit: int = 500) -> Pruned:
    """Passes until nothing is left, as the housekeeping does."""
    runs = checkpoints = 0
    while (removed := await store.prune(policy, limit)) != Pruned():
        assert removed.runs <= limit
        runs, checkpoints = runs + removed.runs, checkpoints + removed.checkpoints
    return Pruned(runs, checkpoints)


async def test_an_ended_run_goes_with_all_that_is_its_own(store: Store) -> None:
    await end(store, await take(store, "r1", key=key("k1")))
    await store.give_feedback("r1", "default", "ann", Feedback(rating=1))
    await with_states(store, "r1")
    await with_states(store, "open")
    await store.accept(new_run("open", key=key("k2")))
    assert await prune_all(store, RetentionConfig()) == Pruned()
    assert await prune_all(store, RUNS) == Pruned(runs=1, checkpoints=3)
    assert [run["run_id"] for run in await store.list("default", RunFilter())] == ["open"]
    assert await store.get("r1", "default") is None and await store.events("r1", "default") == []
    assert await kept(store, "r1") == [] and len(await kept(store, "open")) == 3
    assert (await store.accept(new_run("r2", key=key("k1")))).created
    assert not (await store.accept(new_run("r3", key=key("k2")))).created


async def test_a_failed_run_keeps_what_a_restart_needs(store: Store) -> None:
    for run_id, status in (("done", "completed"), ("broken", "failed")):
        await end(store, await take(store, run_id), status)  # type: ignore[arg-type]
        await with_states(store, run_id)
    await take(store, "open")
    await with_states(store, "open")
    assert await prune_all(store, STATES) == Pruned(checkpoints=5)
    assert await kept(store, "done") == [] and await kept(store, "broken") == [("c3", 1)]
    assert len(await kept(store, "open")) == 3
    assert await status_of(store, "done") == "completed"
    await store.restart("broken", "default", 30.0)
    assert await prune_all(store, STATES) == Pruned() and await kept(store, "broken") == [("c3", 1)]


async def test_portions_are_bounded_and_come_to_an_end(store: Store) -> None:
    for number in range(5):
        await end(store, await take(store, f"r{number}"), "failed")
        await with_states(store, f"r{number}")
    assert (await store.prune(STATES, 2)).checkpoints == 4
    assert await prune_all(store, STATES, 2) == Pruned(checkpoints=6)
    assert (await store.prune(RUNS, 2)).runs == 2
    assert await prune_all(store, RUNS, 2) == Pruned(runs=3, checkpoints=3)


async def test_a_version_that_no_run_has_goes_and_those_in_use_stay(store: Store) -> None:
    for number, version in enumerate(("v1", "v2", "v3")):
        await end(store, await take(store, f"r{number}", version=version))
    await store.accept(new_run("open", version="v2"))
    await prune_all(store, RUNS)
    claimed = await store.claim("open", "one", 60.0, 3)
    assert claimed is not None and claimed.flow_spec["name"] == "challenge"
    again = await store.claim(
        new_run("later", version="v1", flow_spec={"name": "told again"}), "one", 60.0, 3
    )
    assert again is not None and again.flow_spec["name"] == "told again"
    await end(store, again)
    assert (await take(store, "last", version="v1")).flow_version == "v1"


async def test_of_many_processes_one_has_the_turn(store: Store, config: RuntimeConfig) -> None:
    other = await open_store(config)
    try:
        turns = await asyncio.gather(*(s.turn("prune", 60.0) for s in (store, other) for _ in range(10)))
        assert sum(turns) == 1
        assert await other.turn("backup", 60.0) and not await store.turn("backup", 60.0)
        assert await store.turn("prune", 0.0)
        # Begun, and its process died: soon it is somebody's again, and not before. Done: it is not.
        assert await store.turn("long copy", 3600.0, 60.0) and not await other.turn("long copy", 3600.0, 60.0)
        assert await store.turn("copy", 3600.0, 0.1)
        await until(lambda: other.turn("copy", 3600.0, 0.1), 5)
        assert await other.turn("copy", 0.0)
        await asyncio.sleep(0.15)
        assert not await store.turn("copy", 3600.0, 0.1)
    finally:
        await other.close()
