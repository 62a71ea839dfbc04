"""What a work raises, and what a client hears of the database's own faults: alike on every backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from actors.stores.database import Database, Transaction
from actors.stores.open_database import open_database
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import Conflict, InternalError, StoreError

ADD = "INSERT INTO turns (job, taken_at) VALUES (?, {now})"


@pytest.fixture
async def database(config: RuntimeConfig) -> AsyncIterator[Database]:
    if config.redis_url:
        pytest.skip("Redis is no part of the database")
    opened = await open_database(config)
    yield opened
    await opened.close()


def add(job: str) -> Any:
    return lambda tx: tx.executemany(ADD, [(job,)])


def jobs(tx: Transaction) -> list[str]:
    return [row[0] for row in tx.execute("SELECT job FROM turns ORDER BY job").fetchall()]


def break_down(tx: Transaction) -> None:
    add("undone")(tx)
    tx.execute("SELECT 1").fetchone()
    raise KeyError("a fault of ours")


@pytest.mark.parametrize("neighbours", [0, 2])
async def test_a_work_s_own_fault_comes_back_as_it_is(database: Database, neighbours: int) -> None:
    works = [*(add(f"before {n}") for n in range(neighbours)), break_down, add("after")]
    outcomes = await asyncio.gather(*(database.write(work, "k") for work in works), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        *[type(None)] * neighbours, KeyError, type(None),
    ]  # fmt: skip
    assert str(outcomes[neighbours]) == "'a fault of ours'"
    assert await database.read(jobs) == ["after", *(f"before {n}" for n in range(neighbours))]


async def test_reads_loads_and_transactors_raise_a_work_s_own_fault_too(database: Database) -> None:
    with pytest.raises(KeyError, match="a fault of ours"):
        await database.read(lambda tx: {}["a fault of ours"])
    with pytest.raises(KeyError):
        await asyncio.to_thread(database.load, break_down)
    transactor = database.open_transactor()
    with pytest.raises(KeyError):
        await asyncio.to_thread(transactor.run, break_down)
    await asyncio.to_thread(transactor.run, add("after"))
    await asyncio.to_thread(transactor.close)
    assert await database.read(jobs) == ["after"]


async def test_a_work_that_would_end_its_thread_leaves_nobody_waiting(database: Database) -> None:
    def leave(tx: Transaction) -> None:
        tx.execute("SELECT 1").fetchone()
        raise SystemExit("a secret")

    with pytest.raises(InternalError) as told:
        await asyncio.wait_for(database.write(leave), 10)
    assert "secret" not in told.value.message
    await asyncio.wait_for(database.write(add("after")), 10)
    assert await database.read(jobs) == ["after"]


async def test_a_client_hears_of_no_table_key_or_place_and_the_log_does(database: Database) -> None:
    place = str((await database.details())["address"])
    await database.write(add("twice"))
    with pytest.raises(Conflict) as refused:
        await database.write(add("twice"))
    assert refused.value.message == "the database refused a duplicate or dangling row"
    with pytest.raises(Conflict, match="turns"):
        await asyncio.to_thread(database.load, add("twice"))
    with capture_logs() as lines:
        for ask in (database.read, database.write, database.read):
            with pytest.raises(StoreError) as unusable:
                await ask(lambda tx: tx.execute("SELECT 1 FROM missing_table").fetchone())
            assert unusable.value.message == "the database cannot be used right now"
    told = [line for line in lines if line["event"] == "database_fault"]
    assert len(told) <= 1
    assert all("missing_table" in line["detail"] and line["database"] == place for line in told)
    with pytest.raises(StoreError, match="missing_table") as for_operators:
        await asyncio.to_thread(
            database.load, lambda tx: tx.execute("SELECT 1 FROM missing_table").fetchone()
        )
    assert place in for_operators.value.message
