"""Who gets which run."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from pathlib import Path

import pytest

from actors.stores.open_database import open_database
from actors.stores.open_store import open_store
from actors.stores.records import ClaimedRun, RunWrite
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from tests.conformance.stores.sample_runs import (
    LONG_S,
    SPEC,
    end,
    event,
    key,
    new_run,
    status_of,
    take,
    types_of,
    write,
)
from tests.polling import until

DEAD_S = 0.0
"""A lease that has run out when it begins: its owner is dead at once."""


async def claim_next(
    store: Store, limit: int = 10, owner: str = "two", ttl_s: float = LONG_S
) -> list[ClaimedRun]:
    return await store.claim_next(owner, ttl_s, 3, limit)


async def test_a_queued_run_is_taken_once(store: Store) -> None:
    run = new_run("r1", deadline_s=100.0, traceparent="00-abc", user="somebody")
    await store.accept(run)
    claims = await asyncio.gather(*(store.claim("r1", f"o{n}", LONG_S, 3) for n in range(5)))
    (claimed,) = [claim for claim in claims if claim is not None]
    assert claimed.order.request == run.order.request
    assert (claimed.order.user, claimed.order.traceparent) == ("somebody", "00-abc")
    assert claimed.order.attempt == 1 and claimed.lease.token == 1 and claimed.last_seq == 1
    assert 95 < claimed.order.deadline_s <= 100 and 0 <= claimed.queued_s < 5
    assert claimed.flow_spec == SPEC and claimed.flow_version == "v1" and claimed.decision is None
    stored = await store.get("r1", "default")
    assert stored is not None and stored["status"] == "running" and stored["started_at"] is not None


async def test_a_claim_accepts_a_run_that_nobody_has(store: Store) -> None:
    claims = await asyncio.gather(*(store.claim(new_run("r1"), "o", LONG_S, 3) for _ in range(5)))
    (claimed,) = [claim for claim in claims if claim is not None]
    assert (claimed.last_seq, claimed.lease.token, claimed.order.deadline_s) == (1, 1, 300.0)
    assert await types_of(store, "r1") == ["run.queued"]
    assert await store.claim("nothing", "o", LONG_S, 3) is None


async def test_a_claim_with_a_known_key_takes_nothing(store: Store) -> None:
    await store.accept(new_run("r1", key=key()))
    assert await store.claim(new_run("r2", key=key()), "o", LONG_S, 3) is None
    assert await store.get("r2", "default") is None and await status_of(store, "r1") == "queued"
    # The same run again, its first claim's answer lost on the way: it is taken.
    again = await store.claim(new_run("r1", key=key()), "o", LONG_S, 3)
    assert again is not None and again.lease.run_id == "r1"


async def test_a_run_stays_on_the_version_that_it_was_accepted_with(store: Store) -> None:
    await store.accept(new_run("r1", "v1", flow_spec={"name": "old"}))
    await store.accept(new_run("r2", "v2", flow_spec={"name": "new"}))
    specs = {run.lease.run_id: run.flow_spec for run in await claim_next(store)}
    assert specs == {"r1": {"name": "old"}, "r2": {"name": "new"}}


async def test_order_is_priority_then_acceptance(store: Store) -> None:
    priorities = [random.Random(7).randint(-10, 10) for _ in range(1000)]
    for start in range(0, 1000, 250):
        await asyncio.gather(
            *(store.accept(new_run(f"r{n:04}", priority=priorities[n])) for n in range(start, start + 250))
        )
    taken: list[str] = []
    while batch := await claim_next(store, limit=32):
        assert len(batch) <= 32
        taken += [run.lease.run_id for run in batch]
    assert len(taken) == 1000
    ranks = [priorities[int(run_id[1:])] for run_id in taken]
    assert ranks == sorted(ranks, reverse=True)


async def test_within_a_priority_the_first_accepted_is_first(store: Store) -> None:
    ids = [f"r{n:02}" for n in random.Random(3).sample(range(40), 40)]
    for run_id in ids:
        await store.accept(new_run(run_id))
    assert [run.lease.run_id for run in await claim_next(store, limit=100)] == ids


async def test_dead_owners_runs_come_first(store: Store) -> None:
    await store.accept(new_run("queued", priority=10))
    await take(store, "held")
    await take(store, "orphan", ttl_s=DEAD_S)
    claimed = await claim_next(store)
    assert [run.lease.run_id for run in claimed] == ["orphan", "queued"]
    assert claimed[0].lease.token == 2 and claimed[0].order.attempt == 2
    orphan = await store.get("orphan", "default")
    assert [run.taken_over for run in claimed] == [True, False]
    assert orphan is not None and (orphan["deaths"], orphan["attempts"], orphan["owner"]) == (1, 2, "two")
    assert await claim_next(store, limit=0) == []


async def test_a_lease_runs_out_by_itself(store: Store) -> None:
    await take(store, "held")
    assert await store.claim("held", "two", LONG_S, 3) is None
    begun = time.monotonic()
    first = await take(store, "r1", ttl_s=0.25)
    taken: list[ClaimedRun] = []

    async def claim() -> bool:
        taken.extend(await claim_next(store))
        return bool(taken)

    await until(claim, 5)
    assert time.monotonic() - begun > 0.2, "not before its time"
    assert [run.lease.run_id for run in taken] == ["r1"]
    assert taken[0].lease.token > first.lease.token and taken[0].last_seq == first.last_seq


async def test_a_later_holder_goes_on_counting_events(store: Store) -> None:
    first = await take(store, "r1", ttl_s=DEAD_S)
    await store.commit(first.lease, write(first.lease, 2, "run.started", "node.started"))
    second = await store.claim("r1", "two", LONG_S, 3)
    assert second is not None and second.last_seq == 3
    await end(store, second)
    assert await types_of(store, "r1") == ["run.queued", "run.started", "node.started", "run.completed"]
    assert await store.claim("r1", "three", LONG_S, 3) is None


async def test_an_owner_that_takes_its_own_run_again_has_not_died(store: Store) -> None:
    await take(store, "r1", ttl_s=DEAD_S)
    for attempt in range(2, 7):
        (again,) = await claim_next(store, owner="one", ttl_s=DEAD_S)
        assert again.order.attempt == attempt and not again.taken_over
    run = await store.get("r1", "default")
    assert run is not None and run["deaths"] == 0


async def test_a_run_that_kills_its_runners_is_parked(store: Store) -> None:
    claimed = await take(store, "r1", ttl_s=DEAD_S)
    await store.commit(
        claimed.lease, write(claimed.lease, 2, "run.started", "node.started", "node.completed")
    )
    fatal = event("r1", 5, "node.started", "bomb")
    await store.commit(claimed.lease, RunWrite((fatal,)))
    taken = [len(await claim_next(store, owner=f"runner {n}", ttl_s=DEAD_S)) for n in range(3)]
    assert taken == [1, 1, 0]
    run = await store.get("r1", "default")
    assert run is not None and run["status"] == "failed" and run["deaths"] == 3 and run["owner"] is None
    error = run["result"]["error"]
    assert error["code"] == "runner_died" and "'bomb'" in error["message"] and "3 times" in error["message"]
    assert [node["id"] for node in run["result"]["nodes"]] == ["creator"]
    assert run["result"]["usage"]["cost_micro_usd"] == 7
    assert run["finished_at"] is not None
    last = (await store.events("r1", "default"))[-1]
    assert last.type == "run.failed" and last.data["result"] == run["result"] and last.seq == 6


async def test_a_run_that_gets_on_is_not_parked_for_what_killed_its_runners(store: Store) -> None:
    """It only stood beside the one that did: between two deaths a node of it ended."""
    claimed = await take(store, "r1", ttl_s=DEAD_S)
    for death in range(1, 8):
        [claimed] = await claim_next(store, owner=f"runner {death}", ttl_s=DEAD_S)
        run = await store.get("r1", "default")
        assert run is not None and run["deaths"] == 1
        await store.commit(claimed.lease, write(claimed.lease, claimed.last_seq + 1, "node.completed"))
        run = await store.get("r1", "default")
        assert run is not None and run["deaths"] == 0
    # A node that only began is no step: see the test above.
    await store.commit(claimed.lease, write(claimed.lease, claimed.last_seq + 2, "node.started"))
    taken = [len(await claim_next(store, owner=f"late {n}", ttl_s=DEAD_S)) for n in range(3)]
    assert taken == [1, 1, 0]


async def test_max_deaths_of_one_parks_at_the_first(store: Store) -> None:
    await take(store, "r1", ttl_s=DEAD_S)
    assert await store.claim("r1", "two", LONG_S, 1) is None
    run = await store.get("r1", "default")
    assert run is not None and run["status"] == "failed"
    assert "no node was under way" in run["result"]["error"]["message"]


async def test_a_run_whose_deadline_passed_in_the_queue_is_ended(store: Store) -> None:
    await store.accept(new_run("late", priority=10, deadline_s=0.001))
    await store.accept(new_run("in-time"))

    async def claim() -> bool:
        claimed.extend(await claim_next(store, limit=1))
        return bool(claimed)

    claimed: list[ClaimedRun] = []
    await asyncio.sleep(0.002)
    await until(claim, 5)
    assert [run.lease.run_id for run in claimed] == ["in-time"]
    run = await store.get("late", "default")
    assert run is not None and run["status"] == "failed" and run["attempts"] == 0
    assert (run["result"]["error"]["code"], run["result"]["error"]["param"]) == (
        "budget_exceeded",
        "deadline_s",
    )
    assert await types_of(store, "late") == ["run.queued", "run.failed"]


async def test_a_cancelled_run_of_a_dead_owner_is_not_begun_again(store: Store) -> None:
    await take(store, "r1", ttl_s=DEAD_S)
    assert await store.cancel("r1", "default") == "running"
    assert await claim_next(store) == []
    assert await status_of(store, "r1") == "cancelled"
    assert await types_of(store, "r1") == ["run.queued", "run.cancelled"]


async def test_concurrent_claimers_never_share_a_run(store: Store, config: RuntimeConfig) -> None:
    others = [await open_store(config) for _ in range(3)]
    await asyncio.gather(*(store.accept(new_run(f"r{n}")) for n in range(200)))

    async def claimer(number: int) -> list[str]:
        mine: list[str] = []
        while batch := await [store, *others][number % 4].claim_next(f"o{number}", LONG_S, 3, 7):
            mine += [run.lease.run_id for run in batch]
        return mine

    taken = await asyncio.gather(*(claimer(number) for number in range(12)))
    everything = [run_id for mine in taken for run_id in mine]
    assert len(everything) == len(set(everything)) == 200
    for other in others:
        await other.close()


def _claim_all(config_json: str, owner: str, answer: str) -> None:
    async def main() -> None:
        store = await open_store(RuntimeConfig.model_validate_json(config_json))
        mine: list[str] = []
        while batch := await store.claim_next(owner, LONG_S, 3, 3):
            mine += [run.lease.run_id for run in batch]
            for run in batch:
                await end(store, run)
        await store.close()
        Path(answer).write_text(",".join(mine))

    asyncio.run(main())


async def test_claiming_processes_never_share_a_run(
    store: Store, config: RuntimeConfig, tmp_path: Path
) -> None:
    await asyncio.gather(*(store.accept(new_run(f"r{n}")) for n in range(150)))
    spawn = multiprocessing.get_context("spawn")
    answers = [tmp_path / f"claimed-{number}" for number in range(3)]
    claimers = [
        spawn.Process(target=_claim_all, args=(config.model_dump_json(), answer.name, str(answer)))
        for answer in answers
    ]
    for claimer in claimers:
        claimer.start()
    for claimer in claimers:
        await asyncio.to_thread(claimer.join, 60)
        assert claimer.exitcode == 0
    taken = [run_id for answer in answers for run_id in answer.read_text().split(",") if run_id]
    assert len(taken) == len(set(taken)) == 150
    assert {tuple(await types_of(store, run_id)) for run_id in taken} == {("run.queued", "run.completed")}


@pytest.mark.parametrize("limit", [1, 5])
async def test_a_claim_takes_no_more_than_it_asks_for(store: Store, limit: int) -> None:
    for number in range(8):
        await store.accept(new_run(f"r{number}"))
    assert len(await claim_next(store, limit=limit)) == limit
    assert (await store.queue()).queued == 8 - limit


async def test_a_run_that_cannot_be_read_ends_and_stands_in_nobodys_way(
    store: Store, config: RuntimeConfig
) -> None:
    """Damaged, or of another version; the one whose events cannot be read either, too."""
    await store.accept(new_run("r0", "damaged"))
    await store.accept(new_run("r1", "v1"))
    database = await open_database(config)
    try:
        await database.write(
            lambda tx: tx.execute("UPDATE flow_versions SET spec = '{' WHERE version = 'damaged'"), "r0"
        )
        await database.write(
            lambda tx: tx.execute(
                "INSERT INTO events (run_id, seq, time, type, node, attempt, data)"
                " VALUES ('r0', 2, 0, 'node.completed', 'n', 1, '[')"
            ),
            "r0",
        )
        await database.write(lambda tx: tx.execute("UPDATE runs SET last_seq = 2 WHERE run_id = 'r0'"), "r0")
    finally:
        await database.close()
    (claimed,) = await store.claim_next("one", LONG_S, 3, 10)
    assert claimed.order.run_id == "r1"
    damaged = await store.get("r0", "default")
    assert damaged is not None and damaged["status"] == "failed"
    assert "cannot read the run's request" in damaged["result"]["error"]["message"]


async def test_a_lease_that_runs_out_while_the_claim_goes_on_is_not_taken_again_by_it(store: Store) -> None:
    """As for a process stopped in the middle: the first look at the queue ended one run, the second found
    the other one's fresh lease run out."""
    for run_id in ("gone", "dead"):
        await take(store, run_id, ttl_s=0.0)
    assert await store.cancel("gone", "default") == "running"
    claimed = await store.claim_next("two", 0.0, 3, 2)
    assert [run.lease.run_id for run in claimed] == ["dead"]
    assert await status_of(store, "gone") == "cancelled"
