"""Reading a run's events: every durable one once, in order, wherever the reader begins and whoever tells."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.stores.store import Store
from registries.contracts.errors import CapacityError, StoreError
from registries.contracts.runs import RunEvent
from serve_app.event_reader import EventReader, ReaderTooSlow
from serve_app.event_tail import EventTail
from serve_app.run_stream import PAGE, RunStream
from tests.machine_pace import paced
from tests.unit.serve_app.front_door import FaultyStore, until
from tests.unit.serve_app.written_run import WrittenRun, sqlite_store


async def read(stream: RunStream, into: list[RunEvent]) -> None:
    async with aclosing(stream.batches()) as batches:
        async for batch in batches:
            into += [item.event for item in batch]


def durable(events: list[RunEvent]) -> list[int]:
    return [event.seq for event in events if event.type != "node.token"]


chunks = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 2), st.sampled_from(["told", "silent", "late"])), max_size=8
)


@settings(deadline=None, max_examples=60)
@given(before=chunks, after=chunks, data=st.data())
async def test_no_gap_and_no_repetition_at_any_position(before: Any, after: Any, data: Any) -> None:
    """``told`` batches come by a runner's stream, ``late`` ones with the next, others by the store."""
    async with sqlite_store() as store:
        run, tail = await WrittenRun.begin(store), EventTail(store)
        with tail.topic("r") as topic:
            if data.draw(st.booleans(), "somebody followed it before"):
                tail.follow(topic, data.draw(st.integers(0, 1)))
            held_back: list[RunEvent] = []

            async def happen(count: int, tokens: int, how: str) -> None:
                events = await run.write(count, tokens=tokens)
                if how == "told":
                    topic.publish(held_back + events)
                    held_back.clear()
                elif how == "late":
                    held_back.extend(events)
                await asyncio.sleep(0)

            for chunk in before:
                await happen(*chunk)
            start = data.draw(st.integers(0, run.seq), "the reader has seen")
            seen: list[RunEvent] = []
            reading = asyncio.create_task(read(RunStream(store, tail, "r", "default", start), seen))
            for chunk in after:
                await happen(*chunk)
            topic.publish(held_back)
            await run.end()
            async with asyncio.timeout(paced(5)):
                await reading
        await tail.aclose()
    assert durable(seen) == list(range(start + 1, run.seq + 1))
    assert seen[-1].type == "run.completed" if start < run.seq else seen == []
    behind = start
    for event in seen:
        assert event.seq >= behind
        behind = event.seq
    assert len(tail) == 0


async def test_every_position_of_a_long_history() -> None:
    async with sqlite_store() as store:
        run, tail = await WrittenRun.begin(store), EventTail(store)
        await run.write(2 * PAGE + 3)
        await run.end()
        for start in range(run.seq + 1):
            seen: list[RunEvent] = []
            async with asyncio.timeout(paced(5)):
                await read(RunStream(store, tail, "r", "default", start), seen)
            assert durable(seen) == list(range(start + 1, run.seq + 1))
        await tail.aclose()


async def test_a_reader_of_the_end_learns_that_it_was_the_end() -> None:
    async with sqlite_store() as store:
        run, tail = await WrittenRun.begin(store), EventTail(store)
        await run.end()
        seen: list[RunEvent] = []
        async with asyncio.timeout(paced(5)):
            await read(RunStream(store, tail, "r", "default", run.seq), seen)
        assert seen == []
        await tail.aclose()


@pytest.mark.parametrize("told", ["the end", "less than the end"])
async def test_a_reader_of_the_end_learns_it_beside_one_who_still_holds_the_topic(told: str) -> None:
    async with sqlite_store() as store:
        run, tail = await WrittenRun.begin(store), EventTail(store)
        with tail.topic("r") as topic:
            topic.begin(run.seq)
            end = await run.end()
            if told == "the end":
                topic.publish(end)
            seen: list[RunEvent] = []
            async with asyncio.timeout(paced(5)):
                await read(RunStream(store, tail, "r", "default", run.seq), seen)
        assert seen == []
        await tail.aclose()


@pytest.mark.parametrize("is_followed", [True, False])
async def test_a_reader_who_claims_too_much_withholds_nothing_from_others(is_followed: bool) -> None:
    async with sqlite_store() as store:
        run, tail = await WrittenRun.begin(store), EventTail(store)
        seen: list[RunEvent] = []
        ahead = asyncio.create_task(read(RunStream(store, tail, "r", "default", 99), []))
        if is_followed:
            await until(lambda: len(tail) == 1 and bool(tail._topics["r"].readers))
        reading = asyncio.create_task(read(RunStream(store, tail, "r", "default"), seen))
        await until(lambda: durable(seen) == [1])
        await run.write(2)
        await run.end()
        async with asyncio.timeout(paced(5)):
            await reading
        ahead.cancel()
        await asyncio.wait({ahead})
        await tail.aclose()
    assert durable(seen) == [1, 2, 3, 4]


class HeldStore(FaultyStore):
    """A store that answers no reader of events before ``go``."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.go = asyncio.Event()

    async def events(self, *args: Any) -> list[RunEvent]:
        await self.go.wait()
        found: list[RunEvent] = await self._store.events(*args)
        return found


@pytest.mark.parametrize("begun_at", [0, 1])
async def test_who_begins_a_run_gets_every_token_however_slow_the_store_is(begun_at: int) -> None:
    async with sqlite_store() as store:
        run, held = await WrittenRun.begin(store), HeldStore(store)
        tail = EventTail(store)
        with tail.topic("r") as topic:
            topic.begin(begun_at)
            seen: list[RunEvent] = []
            stream = RunStream(held, tail, "r", "default", begun_at=begun_at)  # type: ignore[arg-type]
            reading = asyncio.create_task(read(stream, seen))
            await until(lambda: len(topic.readers) == 1)
            topic.fed = True
            topic.publish(await run.write(3, tokens=2))
            topic.publish(await run.end())
            held.go.set()
            async with asyncio.timeout(paced(5)):
                await reading
        await tail.aclose()
    assert durable(seen) == [1, 2, 3, 4, 5]
    assert [event.seq for event in seen if event.type == "node.token"] == [2, 2, 3, 3, 4, 4]


async def test_what_is_read_to_fill_a_gap_overtakes_no_token() -> None:
    async with sqlite_store() as store:
        run, held = await WrittenRun.begin(store), HeldStore(store)
        tail = EventTail(store)
        with tail.topic("r") as topic:
            topic.begin(0)
            topic.fed = True
            seen: list[RunEvent] = []
            stream = RunStream(held, tail, "r", "default", begun_at=0)  # type: ignore[arg-type]
            reading = asyncio.create_task(read(stream, seen))
            await until(lambda: len(topic.readers) == 1)
            topic.publish(await run.write(1))
            # Committed before the store answers, told only afterwards.
            later = [*await run.write(2, tokens=2), *await run.end()]
            held.go.set()
            await until(lambda: len(seen) > 0)
            topic.publish(later)
            async with asyncio.timeout(paced(5)):
                await reading
        await tail.aclose()
    assert durable(seen) == [1, 2, 3, 4, 5]
    assert [event.seq for event in seen if event.type == "node.token"] == [3, 3, 4, 4]


async def test_a_token_comes_after_the_event_whose_number_it_carries() -> None:
    """A browser that breaks off there goes on after that number: what it did not get would be lost to it."""
    async with sqlite_store() as store:
        run, tail = await WrittenRun.begin(store), EventTail(store)
        with tail.topic("r") as topic:
            topic.fed = True
            seen: list[RunEvent] = []
            reading = asyncio.create_task(read(RunStream(store, tail, "r", "default", begun_at=0), seen))
            await until(lambda: len(topic.readers) == 1)
            topic.publish(await run.write(1))
            await run.write(1)  # told by nobody, as where a mirror has lost it
            topic.publish([run.event("node.token", "t"), *await run.end()])
            async with asyncio.timeout(paced(5)):
                await reading
        await tail.aclose()
    assert [(event.type == "node.token", event.seq) for event in seen] == [
        (False, 1), (False, 2), (False, 3), (True, 3), (False, 4),
    ]  # fmt: skip


async def test_who_comes_late_to_a_run_that_began_here_misses_no_event() -> None:
    async with sqlite_store() as store:
        run, tail = await WrittenRun.begin(store), EventTail(store)
        with tail.topic("r") as topic:
            topic.begin(0)
            topic.fed = True
            topic.publish(await run.write(3, tokens=2))
            topic.publish(await run.end())
            seen: list[RunEvent] = []
            async with asyncio.timeout(paced(5)):
                await read(RunStream(store, tail, "r", "default", begun_at=0), seen)
        await tail.aclose()
    assert durable(seen) == [1, 2, 3, 4, 5]


async def test_an_end_in_the_past_of_a_restarted_run_ends_nothing() -> None:
    async with sqlite_store() as store:
        run, tail = await WrittenRun.begin(store), EventTail(store)
        await run.end("failed")
        await store.restart("r", "default", 60.0)
        seen: list[RunEvent] = []
        reading = asyncio.create_task(read(RunStream(store, tail, "r", "default"), seen))
        await until(lambda: len(seen) == 3)
        claimed = await store.claim("r", "test", 60.0, 3)
        assert claimed is not None
        again = WrittenRun(store, claimed)
        await again.write(1)
        await again.end()
        async with asyncio.timeout(paced(5)):
            await reading
        await tail.aclose()
    types = [event.type for event in seen]
    assert types == ["run.queued", "run.failed", "run.restarted", "round.started", "run.completed"]


async def test_a_store_that_is_away_is_waited_for_and_nothing_is_missed() -> None:
    async with sqlite_store() as real:
        faults = FaultyStore(real)
        run, tail = await WrittenRun.begin(real), EventTail(faults)  # type: ignore[arg-type]
        seen: list[RunEvent] = []
        reading = asyncio.create_task(read(RunStream(faults, tail, "r", "default"), seen))  # type: ignore[arg-type]
        await until(lambda: durable(seen) == [1])
        faults.down = StoreError("away")
        # Twice: the question that was under way when it went away may still be answered.
        for events in (0, 5):
            await run.write(events)
            asked = len(faults.asked)
            await until(lambda before=asked: len(faults.asked) > before)  # type: ignore[misc]
        assert durable(seen) == [1]
        faults.down = None
        await run.end()
        async with asyncio.timeout(paced(5)):
            await reading
        await tail.aclose()
    assert durable(seen) == list(range(1, 8))


async def test_a_slow_reader_is_cut_off_and_another_one_is_not() -> None:
    async with sqlite_store() as store:
        run, tail = await WrittenRun.begin(store), EventTail(store)
        with tail.topic("r") as topic:
            slow = RunStream(store, tail, "r", "default", reader=EventReader(max_events=10)).batches()
            assert [item.event.seq for item in await anext(slow)] == [1]
            seen: list[RunEvent] = []
            fast = asyncio.create_task(read(RunStream(store, tail, "r", "default"), seen))
            await until(lambda: durable(seen) == [1])
            # The slow one is inside the topic and takes nothing from now on.
            pulling = asyncio.create_task(anext(slow))
            await until(lambda: len(topic.readers) == 2)
            for number in range(30):
                topic.publish(await run.write(1))
                await until(lambda n=number: durable(seen)[-1] == n + 2)  # type: ignore[misc]
            # One at least; more when it was still reading the history.
            first = [item.event.seq for item in await pulling]
            assert first == list(range(2, first[-1] + 1))
            with pytest.raises(ReaderTooSlow, match="Last-Event-ID"):
                await anext(slow)
            assert len(topic.readers) == 1
            topic.publish(await run.end())
            await fast
        await tail.aclose()
    assert durable(seen) == list(range(1, run.seq + 1))


async def test_the_bytes_that_wait_for_a_reader_are_bounded() -> None:
    async with sqlite_store() as store:
        run = await WrittenRun.begin(store)
        tail = EventTail(store)
        with tail.topic("r") as topic:
            topic.begin(1)
            reader = EventReader(max_events=1000, max_bytes=10_000)
            topic.readers.add(reader)
            # One that is larger than the bound is taken: else its reader could never get past it.
            topic.publish(await run.write(1, text="x" * 50_000))
            assert not reader.is_cut
            topic.publish(await run.write(1))
            assert reader.is_cut and reader not in topic.readers
            with pytest.raises(CapacityError):
                await anext(aiter(reader.batches()))
        await tail.aclose()


async def test_a_reader_that_leaves_is_forgotten() -> None:
    async with sqlite_store() as store:
        await WrittenRun.begin(store)
        tail = EventTail(store)
        batches = RunStream(store, tail, "r", "default").batches()
        await anext(batches)
        assert len(tail) == 1
        await batches.aclose()
        assert len(tail) == 0
        await tail.aclose()
