from __future__ import annotations

import asyncio

import pytest

from actors.engines.deadline import Deadline
from actors.engines.inflight import InFlight
from registries.contracts.errors import BudgetError, CancelledRun, CapacityError


async def hang(book: InFlight, request_id: str) -> None:
    with book.taking(request_id) as ticket:
        await ticket.wait(asyncio.Event().wait())


async def test_abort_ends_the_wait_with_cancelled_run_and_frees_the_place() -> None:
    book = InFlight("model x")
    task = asyncio.create_task(hang(book, "a"))
    await asyncio.sleep(0)
    assert len(book) == 1
    book.abort("unknown")
    book.abort("a")
    with pytest.raises(CancelledRun):
        await task
    assert len(book) == 0


async def test_abort_before_the_wait_is_seen_at_the_wait() -> None:
    book = InFlight("model x")
    with book.taking("a") as ticket:
        book.abort("a")
        with pytest.raises(CancelledRun):
            await ticket.wait(asyncio.sleep(0))


async def test_cancellation_from_outside_stays_a_cancellation() -> None:
    book = InFlight("model x")
    task = asyncio.create_task(hang(book, "a"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(book) == 0


async def test_abort_and_cancellation_together_are_a_cancellation() -> None:
    book = InFlight("model x")
    task = asyncio.create_task(hang(book, "a"))
    await asyncio.sleep(0)
    book.abort("a")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_same_id_twice_is_two_calls_with_two_names() -> None:
    book = InFlight("model x")
    with book.taking("a") as first, book.taking("a") as second:
        assert first.engine_id != second.engine_id
        assert len(book) == 2
        book.abort_all()
        assert first.aborted
        assert second.aborted
    assert len(book) == 0


async def test_draining_refuses_and_waits_for_the_rest() -> None:
    book = InFlight("model x")
    release = asyncio.Event()

    async def running() -> None:
        with book.taking("a"):
            await release.wait()

    task = asyncio.create_task(running())
    await asyncio.sleep(0)
    drain = asyncio.create_task(book.drain(10))
    await asyncio.sleep(0)
    with pytest.raises(CapacityError, match="shutting down"), book.taking("b"):
        pass
    assert not drain.done()
    release.set()
    await drain
    assert task.done()


async def test_drain_gives_up_after_its_time() -> None:
    book = InFlight("model x")
    task = asyncio.create_task(hang(book, "a"))
    await asyncio.sleep(0)
    await book.drain(0.01)
    assert len(book) == 1
    book.abort_all()
    with pytest.raises(CancelledRun):
        await task


async def test_deadline_is_a_budget_error_that_names_the_field() -> None:
    with pytest.raises(BudgetError) as caught:
        await Deadline(0.01).wait(asyncio.Event().wait(), "waiting for nothing")
    assert caught.value.param == "deadline_s"
    assert "waiting for nothing" in str(caught.value)


async def test_a_timeout_inside_is_not_our_deadline() -> None:
    async def timing_out() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await Deadline(10).wait(timing_out(), "x")


def test_remaining_time_by_an_injected_clock() -> None:
    now = 100.0
    deadline = Deadline(5, clock=lambda: now)
    assert deadline.remaining_s() == 5
    now = 107.0
    assert deadline.remaining_s() == 0
