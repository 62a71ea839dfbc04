"""Model calls with a key: one holder at a time, one answer for all, on every backend."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import Any

import pytest

from actors.stores.open_store import open_store
from actors.stores.records import CallClaim, CallState, Pruned
from actors.stores.schema import MIGRATIONS
from actors.stores.store import Store
from registries.contracts.config import RetentionConfig, RuntimeConfig
from registries.contracts.errors import KeyReused, LeaseLost
from registries.contracts.runs import Feedback
from tests.conformance.stores.sample_runs import LONG_S, end, key, new_run, take
from tests.polling import until

FREE, HELD = CallState("free"), CallState("held")
ANSWER = '{"text": "85 – “quoted” \\u0000 \\ud800"}'
ANSWERED = CallState("answered", ANSWER)
AT_ONCE = RetentionConfig(runs_days=1e-12, checkpoints_days=0)
OVER_S = -1.0
"""A lease that has run out when it is taken."""
tokens = count()


def claim(owner: str = "one", ttl_s: float = LONG_S, name: str = "k", tenant: str = "default") -> CallClaim:
    return CallClaim(tenant, name, owner, f"token {next(tokens)}", ttl_s)


async def answered(store: Store, name: str = "k") -> None:
    held = claim(name=name)
    assert await store.claim_call(key(name), held) == FREE
    await store.keep_answer(held, ANSWER)


async def test_a_call_is_held_then_answered_for_every_process(store: Store, config: RuntimeConfig) -> None:
    other = await open_store(config)
    held = claim()
    assert await store.look_at_call("default", key()) == FREE
    assert await store.claim_call(key(), held) == FREE
    assert await other.claim_call(key(), claim("two")) == HELD
    assert await other.look_at_call("default", key()) == HELD
    await store.keep_answer(held, ANSWER)
    assert await other.look_at_call("default", key()) == ANSWERED
    assert await other.claim_call(key(), claim("two")) == ANSWERED
    assert await other.claim_call(key(), claim("one", tenant="b")) == FREE
    await other.close()
    reopened = await open_store(config)
    assert await reopened.claim_call(key(), claim("three")) == ANSWERED
    await reopened.close()


async def test_fifty_at_once_have_one_holder(store: Store, config: RuntimeConfig) -> None:
    other = await open_store(config)
    both = (store, other)
    found = await asyncio.gather(*(both[n % 2].claim_call(key(), claim(f"p{n}")) for n in range(50)))
    assert found.count(FREE) == 1 and found.count(HELD) == 49
    await other.close()


async def test_another_request_is_refused(store: Store) -> None:
    held, other = claim(), key(digest="other")
    await store.claim_call(key(), held)
    for state in (HELD, ANSWERED):
        assert await store.look_at_call("default", key()) == state
        for asked in (store.claim_call(other, claim()), store.look_at_call("default", other)):
            with pytest.raises(KeyReused) as caught:
                await asked
            assert caught.value.param == "Idempotency-Key"
        if state == HELD:
            await store.keep_answer(held, ANSWER)


@pytest.mark.parametrize("digest", ["d", "other"])
async def test_runs_and_calls_share_their_keys(store: Store, digest: str) -> None:
    claimed = await take(store, "r1", key=key("a run's"))
    await end(store, claimed, "failed")
    with pytest.raises(KeyReused):
        await store.claim_call(key("a run's", digest), claim(name="a run's"))
    await answered(store, "a call's")
    await store.claim_call(key("under way"), claim(name="under way"))
    for name in ("a call's", "under way"):
        used = key(name, digest)
        for asked in (
            store.accept(new_run("r2", key=used)),
            store.claim(new_run("r2", key=used), "one", LONG_S, 3),
            store.restart("r1", "default", 9.0, used),
            store.give_feedback("r1", "default", "u", Feedback(rating=1), used),
        ):
            with pytest.raises(KeyReused):
                await asked  # type: ignore[misc]
    assert await store.get("r2", "default") is None
    assert await store.look_at_call("default", key("a call's")) == ANSWERED


async def test_one_of_a_run_and_a_call_at_once_has_the_key(store: Store, config: RuntimeConfig) -> None:
    other = await open_store(config)
    for number in range(10):
        used = key(f"k{number}")
        outcomes: list[Any] = await asyncio.gather(
            store.accept(new_run(f"r{number}", key=used)),
            other.claim_call(used, claim(name=used.key)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, KeyReused) for outcome in outcomes) == 1, outcomes
    await other.close()


async def test_the_key_of_a_call_without_an_answer_is_unseen(store: Store) -> None:
    failed = claim()
    await store.claim_call(key(), failed)
    await store.give_up_call(failed)
    assert await store.look_at_call("default", key()) == FREE
    assert await store.claim_call(key(digest="other"), claim("two")) == FREE
    # Given up once more, late: it is another's now.
    await store.give_up_call(failed)
    assert await store.look_at_call("default", key(digest="other")) == HELD
    await store.give_up_call(claim(name="never seen"))
    kept = claim(name="kept")
    await store.claim_call(key("kept"), kept)
    await store.keep_answer(kept, ANSWER)
    await store.give_up_call(kept)
    assert await store.look_at_call("default", key("kept")) == ANSWERED
    run = claim(name="run")
    await store.claim_call(key("run"), run)
    await store.give_up_call(run)
    assert (await store.accept(new_run("r1", key=key("run")))).created


async def test_claims_and_failures_at_once_never_hurt_each_other(store: Store, config: RuntimeConfig) -> None:
    other = await open_store(config)
    held: list[str] = []

    async def call_and_fail(own: Store, name: str) -> None:
        for _ in range(25):
            mine = claim(name, name="k")
            if await own.claim_call(key(), mine) == FREE:
                held.append(name)
                assert held == [name]
                held.remove(name)
                await own.give_up_call(mine)

    workers = (call_and_fail((store, other)[n % 2], f"p{n}") for n in range(12))
    await asyncio.gather(*workers)
    assert await store.look_at_call("default", key()) == FREE
    await other.close()


async def test_a_holder_that_died_is_followed_and_writes_nothing_late(store: Store) -> None:
    dead, next_one = claim("one", OVER_S), claim("two")
    await store.claim_call(key(), dead)
    assert await store.look_at_call("default", key()) == FREE
    with pytest.raises(KeyReused):
        await store.claim_call(key(digest="other"), claim("two"))
    assert await store.claim_call(key(), next_one) == FREE
    assert await store.claim_call(key(), claim("three")) == HELD
    with pytest.raises(LeaseLost):
        await store.keep_answer(dead, "{}")
    await store.give_up_call(dead)
    await store.keep_answer(next_one, ANSWER)
    with pytest.raises(LeaseLost):
        await store.keep_answer(dead, "{}")
    assert await store.look_at_call("default", key()) == ANSWERED


async def test_a_lease_that_ran_out_and_was_taken_by_nobody_still_writes(store: Store) -> None:
    late = claim("one", OVER_S)
    await store.claim_call(key(), late)
    await store.keep_answer(late, ANSWER)
    assert await store.claim_call(key(), claim("two")) == ANSWERED


async def test_leases_end_by_the_database_s_clock(store: Store) -> None:
    await store.claim_call(key("long"), claim("one", name="long"))
    assert await store.claim_call(key("long"), claim("two", name="long")) == HELD
    begun = time.monotonic()
    await store.claim_call(key(), claim("one", 0.3))

    async def is_free() -> bool:
        return await store.look_at_call("default", key()) == FREE

    await until(is_free, 10)
    assert time.monotonic() - begun > 0.25, "not before its time"
    assert await store.claim_call(key(), claim("two")) == FREE
    assert await store.look_at_call("default", key("long")) == HELD


async def test_a_process_takes_its_own_call_again(store: Store) -> None:
    """It may not know whether its claim was committed: the database went away just then."""
    unsure, again = claim("one"), claim("one")
    await store.claim_call(key(), unsure)
    assert await store.claim_call(key(), again) == FREE
    with pytest.raises(LeaseLost):
        await store.keep_answer(unsure, "{}")
    await store.keep_answer(again, ANSWER)
    assert await store.claim_call(key(), claim("one")) == ANSWERED


async def test_calls_of_a_runtime_that_ended_are_free_at_the_next_start(store: Store) -> None:
    await store.claim_call(key("old"), claim("boot1:p", name="old"))
    await store.claim_call(key("new"), claim("boot2:p", name="new"))
    assert await store.release_orphans("boot2:") == 0
    assert await store.look_at_call("default", key("old")) == FREE
    assert await store.look_at_call("default", key("new")) == HELD


async def test_answers_are_kept_as_long_as_runs(store: Store) -> None:
    for number in range(5):
        await answered(store, f"k{number}")
    await store.claim_call(key("open"), claim(name="open"))
    await store.claim_call(key("dead"), claim(name="dead", ttl_s=OVER_S))
    await end(store, await take(store, "r1", key=key("a run's")))
    for policy in (RetentionConfig(), RetentionConfig(runs_days=0)):
        assert not await store.prune(policy)
    assert (await store.prune(AT_ONCE, 2)).answers == 2
    removed = Pruned()
    while part := await store.prune(AT_ONCE, 2):
        removed += part
    assert removed.answers == 4
    for name in ("k0", "k4", "dead"):
        assert await store.look_at_call("default", key(name, "other")) == FREE
    assert await store.look_at_call("default", key("open")) == HELD
    assert (await store.accept(new_run("r2", key=key("k1", "other")))).created
    assert await store.claim_call(key("a run's", "other"), claim(name="a run's")) == FREE


async def test_a_database_of_version_2_comes_forward(
    config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = "sqlite" if config.store_url.startswith("sqlite") else "postgresql"
    with monkeypatch.context() as before:
        of_then = {version: steps for version, steps in MIGRATIONS[backend].items() if version <= 2}
        before.setitem(MIGRATIONS, backend, of_then)
        old = await open_store(config)
        assert (await old.facts()).schema_version == 2
        await end(old, await take(old, "ended", key=key("k1")))
        await old.accept(new_run("open", key=key("k2")))
        await old.close()
    stores = await asyncio.gather(*(open_store(config) for _ in range(3)))
    store = stores[0]
    assert (await store.facts()).schema_version == 3
    for name, run_id in (("k1", "ended"), ("k2", "open")):
        again = await store.accept(new_run("another", key=key(name)))
        assert (again.run_id, again.created) == (run_id, False)
        with pytest.raises(KeyReused):
            await store.claim_call(key(name), claim(name=name))
    await answered(store, "k3")
    while await store.prune(AT_ONCE):
        pass
    assert (await store.accept(new_run("r1", key=key("k1", "other")))).created
    assert not (await store.accept(new_run("r2", key=key("k2")))).created
    for one in stores:
        await one.close()
