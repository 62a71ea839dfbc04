from __future__ import annotations

import asyncio
from collections.abc import Sequence

from actors.running.lease_keeper import LeaseKeeper
from actors.stores.records import Lease, Renewal
from registries.contracts.errors import StoreError
from tests.polling import until

TTL_S = 10.0


class Renewer:
    """The database's side: which tokens are still good, and what somebody asked to cancel."""

    def __init__(self) -> None:
        self.good: set[Lease] = set()
        self.cancelled: set[str] = set()
        self.away = False
        self.rounds = 0
        self.closed = False

    def renew(self, leases: Sequence[Lease], ttl_s: float) -> Renewal:
        self.rounds += 1
        if self.away:
            raise StoreError("the disk is away")
        held = frozenset(lease for lease in leases if lease in self.good)
        return Renewal(held, frozenset(self.cancelled))

    def close(self) -> None:
        self.closed = True


class Told:
    def __init__(self) -> None:
        self.lost = 0
        self.cancelled = 0

    def lose(self) -> None:
        self.lost += 1

    def cancel(self) -> None:
        self.cancelled += 1


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def keeper_over(renewer: Renewer, clock: Clock, ttl_s: float = TTL_S) -> LeaseKeeper:
    return LeaseKeeper(renewer, ttl_s, asyncio.get_running_loop(), clock)


async def test_a_renewed_lease_is_sure_for_its_time_from_the_asking() -> None:
    renewer, clock, told = Renewer(), Clock(), Told()
    keeper, lease = keeper_over(renewer, clock), Lease("r", 1)
    renewer.good.add(lease)
    keeper.add(lease, clock.now, told.lose, told.cancel)
    clock.now += TTL_S - 0.1
    assert keeper.is_sure(lease)
    await asyncio.to_thread(keeper.renew)
    clock.now += TTL_S - 0.1
    assert keeper.is_sure(lease)
    clock.now += 0.2
    assert not keeper.is_sure(lease)
    assert (told.lost, told.cancelled) == (0, 0)


async def test_a_lease_with_an_old_token_is_lost_and_told_once() -> None:
    renewer, clock, told = Renewer(), Clock(), Told()
    keeper, lease = keeper_over(renewer, clock), Lease("r", 1)
    renewer.good.add(Lease("r", 2))
    keeper.add(lease, clock.now, told.lose, told.cancel)
    await asyncio.to_thread(keeper.renew)
    await asyncio.to_thread(keeper.renew)
    await until(lambda: told.lost == 1, 2)
    assert not keeper.is_sure(lease)
    assert renewer.rounds == 1, "nothing is left to renew"


async def test_a_cancellation_arrives_with_a_renewal() -> None:
    renewer, clock, told = Renewer(), Clock(), Told()
    keeper, lease = keeper_over(renewer, clock), Lease("r", 1)
    renewer.good.add(lease)
    renewer.cancelled.add("r")
    keeper.add(lease, clock.now, told.lose, told.cancel)
    await asyncio.to_thread(keeper.renew)
    await until(lambda: told.cancelled == 1, 2)
    assert keeper.is_sure(lease) and told.lost == 0


async def test_a_database_that_is_away_loses_no_lease_but_makes_it_unsure_in_time() -> None:
    renewer, clock, told = Renewer(), Clock(), Told()
    keeper, lease = keeper_over(renewer, clock, ttl_s=0.3), Lease("r", 1)
    renewer.good.add(lease)
    renewer.away = True
    keeper.add(lease, clock.now, told.lose, told.cancel)
    keeper.start()
    await until(lambda: renewer.rounds >= 2, 5)
    assert told.lost == 0 and keeper.is_sure(lease)
    clock.now += 0.4
    assert not keeper.is_sure(lease)
    renewer.away = False
    await until(lambda: keeper.is_sure(lease), 5)
    await asyncio.to_thread(keeper.close)
    assert renewer.closed and told.lost == 0


async def test_a_removed_lease_is_not_renewed_and_a_newer_one_stays() -> None:
    renewer, clock, told = Renewer(), Clock(), Told()
    keeper = keeper_over(renewer, clock)
    old, new = Lease("r", 1), Lease("r", 2)
    renewer.good.add(new)
    keeper.add(old, clock.now, told.lose, told.cancel)
    keeper.add(new, clock.now, told.lose, told.cancel)
    keeper.remove(old)
    assert keeper.is_sure(new) and not keeper.is_sure(old)
    keeper.remove(new)
    await asyncio.to_thread(keeper.renew)
    assert renewer.rounds == 0
