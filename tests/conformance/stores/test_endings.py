"""How runs end, wait, go on and begin again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from actors.stores.records import Accepted, IdempotencyKey, RunFilter, RunWrite
from actors.stores.store import Store
from registries.contracts.errors import Conflict, KeyReused, LeaseLost, NotFound, ValidationError
from registries.contracts.runs import Decision, Feedback
from tests.conformance.stores.sample_runs import (
    LONG_S,
    WAITING,
    end,
    key,
    new_run,
    node_result,
    result,
    status_of,
    take,
    types_of,
    write,
)
from tests.polling import until


async def run_of(store: Store, run_id: str = "r1") -> dict[str, Any]:
    run = await store.get(run_id, "default")
    assert run is not None
    return run


async def waiting_run(store: Store, run_id: str = "r1") -> None:
    claimed = await take(store, run_id)
    await store.wait(claimed.lease, WAITING, write(claimed.lease, 2, "run.started", "run.waiting"))


async def failed_run(store: Store, run_id: str = "r1") -> None:
    await end(store, await take(store, run_id), "failed")


async def test_the_end_keeps_the_result(store: Store) -> None:
    claimed = await take(store)
    ended = result("r1", answer="85\0", nodes=(node_result("creator"), node_result("creator", visit=2)))
    await store.finish(claimed.lease, ended, write(claimed.lease, 2, "run.started", "run.completed"))
    run = await run_of(store)
    assert run["status"] == "completed" and run["result"] == ended.model_dump(mode="json")
    assert run["owner"] is None and run["started_at"] <= run["finished_at"]
    assert run["last_seq"] == 3
    (listed,) = await store.list("default", RunFilter())
    assert listed["run_id"] == "r1" and listed["answer"].startswith("85")


async def test_usage_counts_each_visit_once(store: Store) -> None:
    claimed = await take(store)
    once = result("r1", "failed", nodes=(node_result("creator"),))
    await store.finish(claimed.lease, once, write(claimed.lease, 2, "run.failed"))
    await store.restart("r1", "default", 60.0)
    again = await store.claim("r1", "two", LONG_S, 3)
    assert again is not None
    both = result("r1", nodes=(node_result("creator"), node_result("critic", visit=2)))
    await store.finish(again.lease, both, write(again.lease, 4, "run.completed"))
    now = time.time()
    figures = await store.statistics(now - 3600, now + 3600, "default")
    assert figures["by_model"]["tiny-model"]["calls"] == 2


async def test_the_first_terminal_state_stays(store: Store) -> None:
    claimed = await take(store)
    await end(store, claimed)
    with pytest.raises(LeaseLost):
        await end(store, claimed, "failed", seq=3)
    with pytest.raises(LeaseLost):
        await store.commit(claimed.lease, write(claimed.lease, 3, "node.started"))
    with pytest.raises(Conflict):
        await store.cancel("r1", "default")
    assert await types_of(store, "r1") == ["run.queued", "run.completed"]
    assert await store.claim("r1", "two", LONG_S, 3) is None


async def test_a_queued_run_is_cancelled_at_once(store: Store) -> None:
    await store.accept(new_run("r1"))
    assert await store.cancel("r1", "default") == "cancelled"
    assert await store.cancel("r1", "default") == "cancelled"
    run = await run_of(store)
    assert run["result"]["status"] == "cancelled" and run["result"]["error"]["code"] == "cancelled"
    assert run["result"]["flow"] == "challenge" and run["result"]["request_id"] == "req-r1"
    events = await store.events("r1", "default")
    assert [e.type for e in events] == ["run.queued", "run.cancelled"]
    assert events[-1].data["result"] == run["result"]
    assert await store.claim_next("o", LONG_S, 3, 10) == []


async def test_a_running_run_is_marked(store: Store) -> None:
    claimed = await take(store)
    assert await store.cancel("r1", "default") == "running"
    run = await run_of(store)
    assert run["cancel_requested"] and run["status"] == "running"
    await end(store, claimed, "cancelled")
    assert await status_of(store, "r1") == "cancelled"


async def test_a_cancellation_reaches_a_run_that_stops_just_then(store: Store) -> None:
    for run_id in ("waits", "released"):
        claimed = await take(store, run_id)
        await store.cancel(run_id, "default")
        if run_id == "waits":
            await store.wait(claimed.lease, WAITING, write(claimed.lease, 2, "run.waiting"))
        else:
            await store.release(claimed.lease, write(claimed.lease, 2, "run.released"))
        assert await status_of(store, run_id) == "cancelled"
        assert (await types_of(store, run_id))[-1] == "run.cancelled"
    assert await store.claim_next("o", LONG_S, 3, 10) == []


async def test_a_waiting_run_holds_no_lease_and_is_never_claimed(store: Store) -> None:
    claimed = await take(store)
    for _ in range(2):
        await store.wait(claimed.lease, WAITING, write(claimed.lease, 2, "run.started", "run.waiting"))
    run = await run_of(store)
    assert run["status"] == "waiting" and run["waiting"] == WAITING.model_dump(mode="json")
    assert run["owner"] is None and run["finished_at"] is None
    assert await store.claim_next("o", LONG_S, 3, 10) == []
    assert await store.claim("r1", "o", LONG_S, 3) is None
    with pytest.raises(LeaseLost):
        await store.commit(claimed.lease, write(claimed.lease, 4, "node.started"))
    state = await store.queue()
    assert (state.queued, state.running, state.waiting) == (0, 0, 1)


async def test_a_waiting_run_can_be_cancelled(store: Store) -> None:
    claimed = await take(store)
    progress = write(claimed.lease, 2, "run.started", "node.completed", "run.waiting")
    await store.wait(claimed.lease, WAITING, progress)
    assert await store.cancel("r1", "default") == "cancelled"
    run = await run_of(store)
    assert run["waiting"] is None and [node["id"] for node in run["result"]["nodes"]] == ["creator"]


async def test_a_decision_goes_to_the_next_holder(store: Store) -> None:
    await waiting_run(store)
    decision = Decision(action="edit", text="86", comment="off by one")
    assert await store.resume("r1", "default", decision, 50.0) == Accepted("r1", "queued", True, 4)
    claimed = await store.claim("r1", "two", 0.0, 3)
    assert claimed is not None and claimed.decision == decision.model_copy(update={"interrupt_id": "i1"})
    assert 40 < claimed.order.deadline_s <= 50 and claimed.last_seq == 4
    # The holder dies before it has heeded it: the next one gets it, too.
    again = await store.claim("r1", "three", LONG_S, 3)
    assert again is not None and again.decision == claimed.decision
    last = (await store.events("r1", "default"))[-1]
    assert last.type == "run.resumed" and last.data["decision"]["text"] == "86"
    await store.wait(again.lease, WAITING, write(again.lease, 5, "run.waiting"))
    await store.resume("r1", "default", Decision(action="approve"), 50.0)
    third = await store.claim("r1", "four", LONG_S, 3)
    assert third is not None and third.decision is not None and third.decision.action == "approve"


async def test_only_a_waiting_run_can_be_resumed(store: Store) -> None:
    approve = Decision(action="approve")
    await store.accept(new_run("r1"))
    with pytest.raises(Conflict):
        await store.resume("r1", "default", approve, 60.0)
    with pytest.raises(NotFound):
        await store.resume("nothing", "default", approve, 60.0)
    await waiting_run(store, "r2")
    with pytest.raises(NotFound):
        await store.resume("r2", "another tenant", approve, 60.0)
    with pytest.raises(Conflict):
        await store.resume("r2", "default", Decision(action="approve", interrupt_id="i0"), 60.0)
    narrow = WAITING.model_copy(update={"actions": ("approve",)})
    claimed = await take(store, "r3")
    await store.wait(claimed.lease, narrow, write(claimed.lease, 2, "run.waiting"))
    with pytest.raises(ValidationError):
        await store.resume("r3", "default", Decision(action="reject"), 60.0)
    assert await types_of(store, "r2") == ["run.queued", "run.started", "run.waiting"]


async def test_of_many_decisions_at_once_one_counts(store: Store) -> None:
    await waiting_run(store)
    answers = await asyncio.gather(
        *(store.resume("r1", "default", Decision(action="approve"), 60.0) for _ in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Accepted) for answer in answers) == 1
    assert sum(isinstance(answer, Conflict) for answer in answers) == 9
    assert (await types_of(store, "r1")).count("run.resumed") == 1


async def test_a_failed_run_is_restarted(store: Store) -> None:
    await failed_run(store)
    old = (await store.events("r1", "default"))[-1]
    assert await store.restart("r1", "default", 40.0) == Accepted("r1", "queued", True, 3)
    run = await run_of(store)
    assert (run["status"], run["result"], run["finished_at"]) == ("queued", None, None)
    assert run["deadline_at"] - run["created_at"] < 60
    (claimed,) = await store.claim_next("two", LONG_S, 3, 10)
    assert claimed.order.attempt == 2 and claimed.lease.token > 1 and 30 < claimed.order.deadline_s <= 40
    await end(store, claimed)
    assert await types_of(store, "r1") == ["run.queued", "run.failed", "run.restarted", "run.completed"]
    assert (await store.events("r1", "default"))[1] == old


async def test_a_restart_forgets_deaths_and_cancellations(store: Store) -> None:
    await take(store, ttl_s=0.0)
    assert await store.claim("r1", "two", LONG_S, 1) is None
    await store.restart("r1", "default", 60.0)
    run = await run_of(store)
    assert (run["deaths"], bool(run["cancel_requested"])) == (0, False)
    assert await store.claim("r1", "two", 0.0, 2) is not None
    assert await store.claim("r1", "three", LONG_S, 2) is not None


async def test_only_a_failed_run_can_be_restarted(store: Store) -> None:
    await end(store, await take(store))
    with pytest.raises(ValidationError) as caught:
        await store.restart("r1", "default", 60.0)
    assert caught.value.param == "run_id"
    with pytest.raises(NotFound):
        await store.restart("nothing", "default", 60.0)
    await store.accept(new_run("r2"))
    with pytest.raises(ValidationError):
        await store.restart("r2", "default", 60.0)


async def test_keys_of_what_people_ask(store: Store) -> None:
    await failed_run(store)
    first = await store.restart("r1", "default", 60.0, key("restart"))
    assert first.created
    again = await store.restart("r1", "default", 60.0, key("restart"))
    assert again == Accepted("r1", "queued", False, 3)
    with pytest.raises(KeyReused):
        await store.cancel("r1", "default", key("restart", "another route"))
    assert await store.cancel("r1", "default", key("cancel")) == "cancelled"
    assert await store.cancel("r1", "default", key("cancel")) == "cancelled"
    assert await types_of(store, "r1") == ["run.queued", "run.failed", "run.restarted", "run.cancelled"]
    await waiting_run(store, "r2")
    decide = (store.resume("r2", "default", Decision(action="approve"), 60.0, key("go")) for _ in range(20))
    answers = await asyncio.gather(*decide)
    assert sum(answer.created for answer in answers) == 1
    assert (await types_of(store, "r2")).count("run.resumed") == 1
    with pytest.raises(NotFound):
        await store.cancel("nothing", "default", key("unused"))
    assert (await store.accept(new_run("r3", key=key("unused", "x")))).created


async def test_cancel_needs_a_run_of_this_tenant(store: Store) -> None:
    await store.accept(new_run("r1", tenant="a"))
    for tenant, run_id in (("b", "r1"), ("a", "nothing")):
        with pytest.raises(NotFound):
            await store.cancel(run_id, tenant)


async def test_a_late_repetition_of_a_rating_does_not_replace_a_newer_one(store: Store) -> None:
    await store.accept(new_run("r1"))
    old, new = (IdempotencyKey("k1", "old"), 0.2), (IdempotencyKey("k2", "new"), 1.0)
    for once, rating in (old, new, old):
        await store.give_feedback("r1", "default", "u", Feedback(rating=rating), once)
    (given,) = (await run_of(store))["feedback"]
    assert given["rating"] == 1
    with pytest.raises(KeyReused):
        await store.give_feedback("r1", "default", "u", Feedback(rating=0.5), IdempotencyKey("k1", "another"))
    with pytest.raises(NotFound):
        await store.give_feedback("r9", "default", "u", Feedback(rating=0.5), IdempotencyKey("k3", "x"))
    # Refused, so that its key is free.
    await store.give_feedback("r1", "default", "u", Feedback(rating=0.5), IdempotencyKey("k3", "x"))
    (given,) = (await run_of(store))["feedback"]
    assert given["rating"] == 0.5


async def test_feedback_of_a_user_is_kept_once(store: Store) -> None:
    await end(store, await take(store))
    await store.give_feedback("r1", "default", "u", Feedback(rating=0.2))
    await store.give_feedback("r1", "default", "u", Feedback(rating=0.9, comment="better"))
    (given,) = (await run_of(store))["feedback"]
    assert (given["user"], given["rating"], given["comment"]) == ("u", 0.9, "better")
    with pytest.raises(NotFound):
        await store.give_feedback("r1", "another", "u", Feedback(rating=1))


async def test_history_is_the_conversation_of_this_tenant(store: Store) -> None:
    for number, tenant, conversation in (
        (1, "a", "c"),
        (2, "a", "c"),
        (3, "b", "c"),
        (4, "a", "d"),
        (5, "a", "c"),
    ):
        run_id = f"r{number}"
        run = new_run(run_id, tenant=tenant, conversation_id=conversation, prompt=f"q{number}")
        claimed = await store.claim(run, "o", LONG_S, 3)
        assert claimed is not None
        if number != 5:
            answered = result(run_id, answer=f"a{number}")
            await store.finish(claimed.lease, answered, write(claimed.lease, 2, "run.completed"))
    turns = await store.history("c", "a", 20)
    assert [(t.role, t.content) for t in turns] == [
        ("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2"),
    ]  # fmt: skip
    assert [t.content for t in await store.history("c", "a", 1)] == ["a2"]
    assert await store.history("nothing", "a", 5) == []


async def test_tail_brings_what_is_new_of_many_runs(store: Store) -> None:
    one, two = await take(store, "r1"), await take(store, "r2")
    await store.commit(one.lease, write(one.lease, 2, "run.started", "node.started"))
    await store.commit(two.lease, write(two.lease, 2, "run.started"))
    after, found = {"r1": 2, "r2": 0, "nothing": 0}, []

    async def tails() -> bool:
        # More than once: a mirror may bring a run's newest events with a later call, never a gap.
        news = await store.tail(after)
        found.extend((event.run_id, event.seq) for event in news)
        after.update((event.run_id, event.seq) for event in news)
        return len(found) >= 3

    await until(tails, 5)
    assert sorted(found) == [("r1", 3), ("r2", 1), ("r2", 2)]
    assert await store.tail({}) == []
    await store.commit(one.lease, RunWrite())
