"""What is read of runs, on every backend."""

from __future__ import annotations

import asyncio

import pytest

from actors.stores.records import QueueState, RunFilter
from actors.stores.store import Store
from registries.contracts.errors import NotFound
from registries.contracts.runs import Feedback
from tests.conformance.stores.sample_runs import (
    LONG_S,
    WAITING,
    checkpoint,
    end,
    event,
    new_run,
    result,
    take,
    task_write,
    write,
)


async def ids(store: Store, tenant: str = "default", **filter: object) -> list[str]:
    return [run["run_id"] for run in await store.list(tenant, RunFilter(**filter))]  # type: ignore[arg-type]


async def test_pages_hold_every_run_once_while_new_ones_come_in(store: Store) -> None:
    for number in range(7):
        await store.accept(new_run(f"r{number}"))
    first = await ids(store, limit=3)
    await store.accept(new_run("r9"))
    second = await ids(store, limit=3, before=first[-1])
    third = await ids(store, limit=3, before=second[-1])
    assert [*first, *second, *third] == [f"r{number}" for number in reversed(range(7))]
    assert await ids(store, before="r0") == []


async def test_every_filter_narrows_the_list(store: Store) -> None:
    await end(store, await take(store, "r1", user="ann", conversation_id="c"))
    await end(store, await take(store, "r2", user="eve"), "failed")
    await store.accept(new_run("r3", user="ann", flow_type="other", parent="r1"))
    await store.accept(new_run("r4", tenant="b"))
    assert await ids(store) == ["r3", "r2", "r1"] and await ids(store, "b") == ["r4"]
    assert await ids(store, statuses=("completed", "failed")) == ["r2", "r1"]
    assert await ids(store, flow="other") == ["r3"] == await ids(store, parent="r1")
    assert await ids(store, user="ann") == ["r3", "r1"]
    assert await ids(store, conversation_id="c") == ["r1"]
    second = await store.get("r2", "default")
    assert second is not None
    assert await ids(store, created_after=second["created_at"]) == ["r3", "r2"]
    assert await ids(store, created_before=second["created_at"]) == ["r1"]
    assert await ids(store, statuses=("queued",), user="eve") == []


async def test_a_listed_run_is_short(store: Store) -> None:
    long = "ä" * 1000
    claimed = await take(store, "r1", prompt=long, input={"more": long})
    ended = result("r1", answer=long)
    await store.finish(claimed.lease, ended, write(claimed.lease, claimed.last_seq + 1, "run.completed"))
    (row,) = await store.list("default", RunFilter())
    whole = await store.get("r1", "default")
    assert whole is not None and whole["request"]["prompt"] == long and whole["result"]["answer"] == long
    assert row["prompt"] == long[:200] == row["answer"]
    assert "input" not in row["request"] and "nodes" not in row["result"] and "feedback" not in row
    assert row["error"] is None and row["usage"]["prompt_tokens"] == ended.usage.prompt_tokens
    dropped = {"request", "result", "feedback"}
    assert {n: row[n] for n in whole if n not in dropped} == {n: whole[n] for n in whole if n not in dropped}


async def test_many_runs_are_tailed_at_once(store: Store) -> None:
    for number in range(3):
        claimed = await take(store, f"r{number}")
        await store.commit(
            claimed.lease, write(claimed.lease, claimed.last_seq + 1, "run.started", "node.completed")
        )
    last = await store.events("r0", "default")
    seqs = [e.seq for e in last]
    seen = {"r0": seqs[-1], "r1": seqs[-2], "r2": 0, "nobody": 0}
    found = [(e.run_id, e.seq) for e in await store.tail(seen)]
    assert found == [("r1", seqs[-1]), *(("r2", seq) for seq in seqs)]
    assert (await store.tail({"r1": seqs[-2]}))[0] == event("r1", seqs[-1])
    assert await store.tail({}) == []


async def test_thousands_are_tailed_at_once(store: Store) -> None:
    await store.accept(new_run("r1"))
    seen = {f"nobody-{number}": number for number in range(10_000)} | {"r1": 0}
    assert [(e.run_id, e.type) for e in await store.tail(seen)] == [("r1", "run.queued")]


async def test_events_come_in_portions(store: Store) -> None:
    claimed = await take(store)
    more = ["node.completed"] * 5
    await store.commit(claimed.lease, write(claimed.lease, claimed.last_seq + 1, *more))
    whole = [e.seq for e in await store.events("r1", "default")]
    portion = [e.seq for e in await store.events("r1", "default", after=1, limit=2)]
    assert whole == list(range(1, len(whole) + 1)) and portion == [2, 3]
    assert await store.events("r1", "b") == []


async def test_the_queue_counts_open_runs_of_all_tenants(store: Store) -> None:
    assert await store.queue() == QueueState()
    await store.accept(new_run("r1"))
    await store.accept(new_run("r2", tenant="b"))
    await take(store, "r3")
    waiting = await take(store, "r4")
    await store.wait(waiting.lease, WAITING, write(waiting.lease, waiting.last_seq + 1, "run.waiting"))
    await end(store, await take(store, "r5"))
    state = await store.queue()
    assert (state.queued, state.running, state.waiting) == (2, 1, 1)
    assert 0.0 < state.oldest_queued_s < LONG_S


async def test_history_is_the_end_of_a_conversation(store: Store) -> None:
    long = "answer " * 100
    for number in range(3):
        claimed = await take(store, f"r{number}", conversation_id="c", prompt=f"q{number}")
        ended = result(f"r{number}", answer=f"{long}{number}")
        await store.finish(claimed.lease, ended, write(claimed.lease, claimed.last_seq + 1, "run.completed"))
    await end(store, await take(store, "r3", conversation_id="c"), "failed")
    await end(store, await take(store, "r4", conversation_id="c", tenant="b"))
    turns = [(t.role, t.content) for t in await store.history("c", "default", 3)]
    assert turns == [("assistant", f"{long}1"), ("user", "q2"), ("assistant", f"{long}2")]
    assert len(await store.history("c", "default", 20)) == 6
    assert await store.history("c", "default", 0) == [] == await store.history("other", "default", 9)


async def test_a_users_later_rating_replaces_the_first(store: Store) -> None:
    await end(store, await take(store))
    await store.give_feedback("r1", "default", "ann", Feedback(rating=0.1, comment="bad"))
    await store.give_feedback("r1", "default", "ann", Feedback(rating=0.9))
    await store.give_feedback("r1", "default", "eve", Feedback(rating=1, comment="ä"))
    run = await store.get("r1", "default")
    assert run is not None
    given = {f["user"]: (f["rating"], f["comment"]) for f in run["feedback"]}
    assert given == {"ann": (0.9, None), "eve": (1.0, "ä")}
    for run_id, tenant in (("r1", "b"), ("nothing", "default")):
        with pytest.raises(NotFound):
            await store.give_feedback(run_id, tenant, "ann", Feedback(rating=0.5))


async def test_many_ratings_at_once_are_all_kept(store: Store) -> None:
    await store.accept(new_run("r1"))
    users = [f"u{number}" for number in range(20)]
    await asyncio.gather(*(store.give_feedback("r1", "default", u, Feedback(rating=0.5)) for u in users))
    run = await store.get("r1", "default")
    assert run is not None and sorted(f["user"] for f in run["feedback"]) == sorted(users)


async def test_checkpoints_come_newest_first_with_their_writes(store: Store) -> None:
    names = [f"c{number:03}" for number in range(5)]
    await store.keep([checkpoint("t", name) for name in names], [task_write("t", "c003")])
    assert await store.checkpoint("t", "") == (checkpoint("t", "c004"), [])
    assert await store.checkpoint("t", "", "c003") == (checkpoint("t", "c003"), [task_write("t", "c003")])
    assert await store.checkpoint("t", "", "c9") is None and await store.checkpoint("no", "") is None
    listed = await store.checkpoints("t", before="c004", limit=2)
    assert [(row.checkpoint_id, len(writes)) for row, writes in listed] == [("c003", 1), ("c002", 0)]
    await store.drop_checkpoints("t", names[1:])
    assert [row.checkpoint_id for row, _ in await store.checkpoints(None)] == ["c000"]
    await store.drop_threads(["t", "nobody"])
    assert await store.checkpoints("t") == []
