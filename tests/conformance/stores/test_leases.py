"""One writer a run: what a lease allows, and what it does no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.stores.open_store import open_store
from actors.stores.records import Lease, RunWrite
from actors.stores.store import LeaseRenewer, Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import Conflict, InternalError, LeaseLost, StoreError
from tests.conformance.stores.sample_runs import (
    LONG_S,
    WAITING,
    checkpoint,
    end,
    event,
    new_run,
    result,
    status_of,
    take,
    task_write,
    types_of,
    write,
)


@pytest.fixture
async def renewer(store: Store) -> AsyncIterator[LeaseRenewer]:
    opened = store.open_renewer()
    yield opened
    await asyncio.to_thread(opened.close)


async def renew(renewer: LeaseRenewer, *leases: Lease, ttl_s: float = LONG_S) -> tuple[set[str], set[str]]:
    """Run ids still held, and those to be cancelled."""
    renewal = await asyncio.to_thread(renewer.renew, leases, ttl_s)
    assert renewal.held <= set(leases)
    return {lease.run_id for lease in renewal.held}, set(renewal.cancelled)


async def test_a_commit_writes_events_and_states_together(store: Store) -> None:
    claimed = await take(store)
    state = RunWrite(
        (event("r1", 2, "run.started"), event("r1", 3)), (checkpoint("r1"),), (task_write("r1"),)
    )
    await store.commit(claimed.lease, state)
    assert await store.events("r1", "default", after=2) == [event("r1", 3)]
    assert await store.checkpoint("r1", "") == (checkpoint("r1"), [task_write("r1")])
    await store.commit(claimed.lease, RunWrite(checkpoints=(checkpoint("r1", "c2"),)))
    run = await store.get("r1", "default")
    assert run is not None and run["last_seq"] == 3
    assert [row.checkpoint_id for row, _ in await store.checkpoints("r1")] == ["c2", "c1"]


async def test_events_that_leave_a_gap_are_refused(store: Store) -> None:
    claimed = await take(store)
    for bad in (
        write(claimed.lease, 3, "run.started"),
        write(claimed.lease, 1, "run.started"),
        RunWrite((event("r1", 2), event("r1", 4))),
        RunWrite((event("another", 2),)),
    ):
        with pytest.raises(Conflict) as caught:
            await store.commit(claimed.lease, bad)
        assert not isinstance(caught.value, LeaseLost)
    assert await types_of(store, "r1") == ["run.queued"]


async def test_a_commit_whose_answer_was_lost_may_be_repeated(store: Store) -> None:
    claimed = await take(store)
    started = write(claimed.lease, 2, "run.started", "node.started")
    for _ in range(2):
        await store.commit(claimed.lease, started)
    for _ in range(2):
        await end(store, claimed, seq=4)
    assert await types_of(store, "r1") == ["run.queued", "run.started", "node.started", "run.completed"]


async def test_a_zombie_writes_nothing(store: Store) -> None:
    zombie = await take(store, ttl_s=0.0)
    holder = await store.claim("r1", "two", LONG_S, 3)
    assert holder is not None
    late = RunWrite((event("r1", 2, "run.started"),), (checkpoint("r1"),), (task_write("r1"),))
    attempts = (
        lambda: store.commit(zombie.lease, late),
        lambda: store.commit(zombie.lease, RunWrite(checkpoints=(checkpoint("r1"),))),
        lambda: end(store, zombie),
        lambda: store.wait(zombie.lease, WAITING, write(zombie.lease, 2, "run.waiting")),
        lambda: store.release(zombie.lease, write(zombie.lease, 2, "run.released")),
    )
    for attempt in attempts:
        with pytest.raises(LeaseLost):
            await attempt()
    assert await store.checkpoint("r1", "") is None and await types_of(store, "r1") == ["run.queued"]
    await store.commit(holder.lease, write(holder.lease, 2, "run.started"))
    with pytest.raises(LeaseLost):
        await store.commit(zombie.lease, write(zombie.lease, 2, "run.started"))
    await end(store, holder, seq=3)
    with pytest.raises(LeaseLost):
        await end(store, zombie, seq=3)
    assert await types_of(store, "r1") == ["run.queued", "run.started", "run.completed"]


async def test_a_zombie_does_not_take_the_parking_for_its_own_end(store: Store) -> None:
    zombie = await take(store, ttl_s=0.0)
    assert await store.claim("r1", "two", LONG_S, 1) is None
    with pytest.raises(LeaseLost):
        await end(store, zombie, "failed")
    run = await store.get("r1", "default")
    assert run is not None and run["result"]["error"]["code"] == "runner_died"


async def test_a_lease_that_ran_out_untaken_still_writes(store: Store) -> None:
    claimed = await take(store, ttl_s=0.0)
    await store.commit(claimed.lease, write(claimed.lease, 2, "run.started"))
    await end(store, claimed, seq=3)
    assert await status_of(store, "r1") == "completed"


async def test_renewal_prolongs_what_is_held(store: Store, renewer: LeaseRenewer) -> None:
    short = await take(store, "short", ttl_s=0.0)
    ended = await take(store, "ended")
    await end(store, ended)
    lost = await take(store, "lost", ttl_s=0.0)
    await store.claim("lost", "two", LONG_S, 3)
    leases = (short.lease, ended.lease, lost.lease, Lease("nothing", 1))
    assert await renew(renewer, *leases) == ({"short"}, set())
    assert await store.claim_next("two", LONG_S, 3, 10) == []
    assert await renew(renewer, short.lease, ttl_s=0.0) == ({"short"}, set())
    assert [run.lease.run_id for run in await store.claim_next("two", LONG_S, 3, 10)] == ["short"]
    assert await renew(renewer, short.lease) == (set(), set())
    assert await renew(renewer) == (set(), set())


async def test_renewal_brings_word_of_cancellations(store: Store, renewer: LeaseRenewer) -> None:
    one, two = await take(store, "r1"), await take(store, "r2")
    assert await store.cancel("r2", "default") == "running"
    assert await renew(renewer, one.lease, two.lease) == ({"r1", "r2"}, {"r2"})


async def test_many_leases_are_renewed_at_once(store: Store, renewer: LeaseRenewer) -> None:
    claims = await asyncio.gather(*(take(store, f"r{number}", ttl_s=0.0) for number in range(150)))
    held, _ = await renew(renewer, *(claim.lease for claim in claims))
    assert len(held) == 150 and await store.claim_next("two", LONG_S, 3, 200) == []


async def test_renewing_goes_on_while_the_loop_is_busy_with_writes(
    store: Store, renewer: LeaseRenewer
) -> None:
    claimed = await take(store, "mine")
    writing = asyncio.gather(*(store.accept(new_run(f"r{number}")) for number in range(300)))
    for _ in range(5):
        assert await renew(renewer, claimed.lease) == ({"mine"}, set())
    await writing


async def test_a_closed_renewer_says_so(store: Store) -> None:
    renewer = store.open_renewer()
    await asyncio.to_thread(renewer.close)
    await asyncio.to_thread(renewer.close)
    with pytest.raises(StoreError):
        await asyncio.to_thread(renewer.renew, [Lease("r1", 1)], 1.0)


async def test_releasing_hands_a_run_over_without_a_death(store: Store) -> None:
    first = await take(store)
    for _ in range(2):
        await store.release(first.lease, write(first.lease, 2, "run.started", "run.released"))
    (second,) = await store.claim_next("two", LONG_S, 1, 10)
    assert second.last_seq == 3 and second.lease.token == 2 and second.order.attempt == 2
    run = await store.get("r1", "default")
    assert run is not None and run["deaths"] == 0 and run["owner"] == "two"
    with pytest.raises(LeaseLost):
        await store.release(first.lease, write(first.lease, 4, "run.released"))


async def test_a_change_of_status_needs_its_event(store: Store) -> None:
    claimed = await take(store)
    with pytest.raises(InternalError):
        await store.finish(claimed.lease, result("r1"), RunWrite())
    with pytest.raises(InternalError):
        await store.finish(claimed.lease, result("r1"), write(claimed.lease, 2, "run.failed"))
    with pytest.raises(InternalError):
        await store.release(claimed.lease, write(claimed.lease, 2, "run.started"))
    assert await status_of(store, "r1") == "running"


async def test_orphans_of_an_earlier_runtime_are_given_back(store: Store, config: RuntimeConfig) -> None:
    old = await take(store, "old", owner="boot1/a")
    doomed = await take(store, "doomed", owner="boot1/b")
    await take(store, "mine", owner="boot2/a")
    await store.cancel("doomed", "default")
    starting = await open_store(config)
    assert await starting.release_orphans("boot2/") == 2
    assert await starting.release_orphans("boot2/") == 0
    await starting.close()
    assert await types_of(store, "old") == ["run.queued", "run.released"]
    assert (await types_of(store, "doomed"))[-1] == "run.cancelled"
    for zombie in (old, doomed):
        with pytest.raises(LeaseLost):
            await store.release(zombie.lease, write(zombie.lease, 2, "run.released"))
    (again,) = await store.claim_next("boot2/a", LONG_S, 1, 10)
    assert again.lease.run_id == "old" and again.lease.token > old.lease.token
    run = await store.get("old", "default")
    assert run is not None and run["deaths"] == 0 and await status_of(store, "mine") == "running"
