"""What waits together is committed together, in order, and fails together only when it must."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from actors.stores.database import Work
from actors.stores.write_lane import GROUP, WriteLane
from registries.contracts.errors import InternalError, StoreError
from tests.polling import until


class Groups:
    """A commit that waits for ``go`` and remembers what it was given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun = threading.Event()
        self.go = threading.Event()

    def commit(self, works: Sequence[Work[Any]]) -> list[Any]:
        self.sizes.append(len(works))
        self.begun.set()
        assert self.go.wait(10)
        return [work(None) for work in works]  # type: ignore[arg-type]


def answering(value: Any) -> Work[Any]:
    return lambda tx: value


async def test_what_waits_shares_a_commit_and_each_gets_its_own_answer() -> None:
    groups = Groups()
    lane = WriteLane(groups.commit, "lane")
    first = asyncio.ensure_future(lane.write(answering("first"), "k"))
    await until(groups.begun.is_set, 5)
    rest = [
        asyncio.ensure_future(lane.write(answering(number), f"k{number % 5}")) for number in range(GROUP + 6)
    ]
    await asyncio.sleep(0)
    groups.go.set()
    assert await first == "first"
    assert await asyncio.gather(*rest) == list(range(GROUP + 6))
    assert groups.sizes == [1, GROUP, 6]
    await lane.close()


async def test_works_are_ordered_by_key_and_by_arrival_within_one() -> None:
    groups = Groups()
    lane = WriteLane(groups.commit, "lane")
    done: list[str] = []

    def work(name: str) -> Work[None]:
        return lambda tx: done.append(name)

    first = asyncio.ensure_future(lane.write(work("z0"), "z"))
    await until(groups.begun.is_set, 5)
    rest = [asyncio.ensure_future(lane.write(work(name), name[0])) for name in ("c1", "a1", "c2", "b1", "a2")]
    await asyncio.sleep(0)
    groups.go.set()
    await asyncio.gather(first, *rest)
    assert done == ["z0", "a1", "a2", "b1", "c1", "c2"]
    await lane.close()


async def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    groups = Groups()
    lane = WriteLane(groups.commit, "lane")
    done: list[str] = []
    first = asyncio.ensure_future(lane.write(lambda tx: done.append("first"), "k"))
    await until(groups.begun.is_set, 5)
    left = asyncio.ensure_future(lane.write(lambda tx: done.append("left"), "k"))
    stays = asyncio.ensure_future(lane.write(lambda tx: done.append("stays"), "k"))
    await asyncio.sleep(0)
    first.cancel()
    left.cancel()
    groups.go.set()
    await stays
    assert done == ["first", "stays"]
    await lane.close()


async def test_an_outage_fails_what_has_not_begun_and_lets_the_rest_end() -> None:
    groups = Groups()
    lane = WriteLane(groups.commit, "lane")
    first = asyncio.ensure_future(lane.write(answering("begun"), "k"))
    await until(groups.begun.is_set, 5)
    second = asyncio.ensure_future(lane.write(answering("waiting"), "k"))
    await asyncio.sleep(0)
    lane.refuse_waiting(StoreError("away"))
    with pytest.raises(StoreError, match="away"):
        await second
    groups.go.set()
    assert await first == "begun"
    assert await lane.write(answering("later"), "k") == "later"
    await lane.close()


async def test_closing_waits_for_what_was_handed_in() -> None:
    groups = Groups()
    groups.go.set()
    lane = WriteLane(groups.commit, "lane")
    writes = [asyncio.ensure_future(lane.write(answering(number), "k")) for number in range(10)]
    await asyncio.sleep(0)
    await lane.close()
    assert [write.result() for write in writes] == list(range(10))


@pytest.mark.parametrize("fault", [TypeError("unforeseen"), AssertionError("unreachable"), SystemExit(1)])
async def test_a_commit_that_breaks_is_told_to_all_who_wait_and_the_lane_goes_on(
    fault: BaseException,
) -> None:
    faults: list[BaseException] = [fault]

    def commit(works: Sequence[Work[Any]]) -> list[Any]:
        if faults:
            raise faults.pop()
        return [work(None) for work in works]  # type: ignore[arg-type]

    lane = WriteLane(commit, "lane")
    writes = [lane.write(answering(number), "k") for number in range(GROUP)]
    outcomes = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 10)
    assert [type(outcome) for outcome in outcomes] == [InternalError] * GROUP
    assert len({id(outcome) for outcome in outcomes}) == GROUP
    assert await asyncio.wait_for(lane.write(answering("later"), "k"), 10) == "later"
    await lane.close()
