"""Accepted means committed, once for each key."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from actors.stores.open_store import open_store
from actors.stores.records import Accepted, RunFilter
from actors.stores.store import Store
from registries.contracts.config import RetentionConfig, RuntimeConfig
from registries.contracts.errors import Conflict, KeyReused
from tests.conformance.stores.sample_runs import checkpoint, end, key, new_run, take, types_of


async def test_an_accepted_run_is_there_for_another_process(store: Store, config: RuntimeConfig) -> None:
    assert await store.accept(new_run("r1", priority=3)) == Accepted("r1", "queued", True, 1)
    other = await open_store(config)
    run = await other.get("r1", "default")
    await other.close()
    assert run is not None
    assert (run["status"], run["flow_version"], run["user"], run["priority"]) == ("queued", "v1", "u", 3)
    assert run["request"]["prompt"] == new_run("r1").order.request.prompt
    assert run["result"] is None and abs(run["created_at"] - time.time()) < 60
    assert run["deadline_at"] == pytest.approx(run["created_at"] + 300, abs=1)


async def test_its_first_event_says_that_it_is_queued(store: Store) -> None:
    await store.accept(new_run("r1", parent="r0"))
    (first,) = await store.events("r1", "default")
    assert (first.seq, first.type, first.attempt) == (1, "run.queued", 1)
    assert first.data == {"flow": "challenge", "flow_version": "v1", "priority": 0, "parent": "r0"}
    assert abs(first.time - time.time()) < 60


async def test_the_same_run_id_twice_is_a_conflict(store: Store) -> None:
    await store.accept(new_run("r1"))
    with pytest.raises(Conflict):
        await store.accept(new_run("r1", prompt="another"))
    assert await types_of(store, "r1") == ["run.queued"]
    run = await store.get("r1", "default")
    assert run is not None and "48 + 37" in run["request"]["prompt"]


async def test_a_tenant_sees_its_own_runs_only(store: Store) -> None:
    await store.accept(new_run("r1", tenant="a"))
    assert await store.get("r1", "b") is None
    assert await store.events("r1", "b") == []
    assert await store.list("b", RunFilter()) == []
    assert await store.get("nothing", "a") is None
    assert [run["run_id"] for run in await store.list("a", RunFilter())] == ["r1"]


async def test_a_fork_begins_with_its_state(store: Store) -> None:
    await store.accept(new_run("r2", parent="r1", checkpoints=(checkpoint("r2"),)))
    found = await store.checkpoint("r2", "")
    assert found is not None and found[0] == checkpoint("r2")
    run = await store.get("r2", "default")
    assert run is not None and run["parent"] == "r1"


async def test_a_key_makes_one_run(store: Store) -> None:
    first = await store.accept(new_run("r1", key=key()))
    again = await store.accept(new_run("r2", key=key()))
    assert first.created and again == Accepted("r1", "queued", False, 1)
    assert await store.get("r2", "default") is None
    other_tenant = await store.accept(new_run("r3", tenant="b", key=key()))
    assert other_tenant.created


async def test_a_replay_tells_how_far_the_run_is(store: Store) -> None:
    claimed = await take(store, "r1", key=key())
    await end(store, claimed)
    assert await store.accept(new_run("r2", key=key())) == Accepted("r1", "completed", False, 2)


async def test_a_key_can_be_looked_up_without_writing(store: Store) -> None:
    assert await store.known_run("default", key()) is None
    claimed = await take(store, "r1", key=key())
    await end(store, claimed)
    assert await store.known_run("default", key()) == Accepted("r1", "completed", False, 2)
    assert await store.known_run("b", key()) is None
    with pytest.raises(KeyReused):
        await store.known_run("default", replace(key(), digest="another"))


async def test_a_key_with_another_request_is_refused(store: Store) -> None:
    await store.accept(new_run("r1", key=key()))
    with pytest.raises(KeyReused) as caught:
        await store.accept(new_run("r2", key=key(digest="another body")))
    assert caught.value.param == "Idempotency-Key"
    assert await store.get("r2", "default") is None


async def test_fifty_duplicates_at_once_make_one_run(store: Store, config: RuntimeConfig) -> None:
    other = await open_store(config)
    both = (store, other)
    answers = await asyncio.gather(
        *(both[n % 2].accept(new_run(f"r{n:02}", key=key("same"))) for n in range(50))
    )
    assert sum(answer.created for answer in answers) == 1
    assert len({answer.run_id for answer in answers}) == 1
    assert len(await store.list("default", RunFilter(limit=100))) == 1
    reopened = await open_store(config)
    late = await reopened.accept(new_run("late", key=key("same")))
    assert not late.created and late.run_id == answers[0].run_id
    await other.close()
    await reopened.close()


async def test_a_refused_run_does_not_use_up_its_key(store: Store) -> None:
    await store.accept(new_run("r1"))
    with pytest.raises(Conflict):
        await store.accept(new_run("r1", key=key()))
    assert (await store.accept(new_run("r2", key=key()))).created


async def test_a_key_of_a_run_that_retention_removed_is_unseen(store: Store) -> None:
    claimed = await take(store, "r1", key=key())
    await end(store, claimed)
    moment = 1e-9  # days: everything that has ended is older
    assert (await store.prune(RetentionConfig(runs_days=moment, checkpoints_days=moment))).runs == 1
    assert (await store.accept(new_run("r2", key=key(digest="other")))).created


async def test_many_at_once_lose_nothing(store: Store) -> None:
    async def live(number: int) -> None:
        claimed = await take(store, f"r{number}")
        await end(store, claimed)

    await asyncio.gather(*(live(number) for number in range(50)))
    for number in range(50):
        assert await types_of(store, f"r{number}") == ["run.queued", "run.completed"]
