"""What PostgreSQL's transactions promise while the server stops, dies, freezes and comes back."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from actors.stores.connection_check import check_connections
from actors.stores.connection_share import ConnectionShare
from actors.stores.database import Transaction, Work
from actors.stores.open_database import postgres_name
from actors.stores.postgres_connection import IDLE_IN_TRANSACTION_S, LOCK_TIMEOUT_S
from actors.stores.postgres_database import PostgresDatabase
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import Conflict, LeaseLost, StoreError, StoreFull, ValidationError
from tests.machine_pace import paced
from tests.own_server import OwnServer
from tests.polling import until
from tests.postgres_server import own_postgres

SHARE = ConnectionShare(2, 6)
BOUND_S = 2.0
"""PATIENCE_S and _ANSWER_S of actors.stores.outage_watch: all of it is spent on a server that is frozen."""


@asynccontextmanager
async def database_at(
    url: str, share: ConnectionShare = SHARE, name: str = "parley"
) -> AsyncIterator[PostgresDatabase]:
    database = await PostgresDatabase.open(url, share, name)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    async with database_at(postgres_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with own_postgres() as own:
        yield own


def mark(job: str) -> Work[None]:
    def work(tx: Transaction) -> None:
        tx.execute("INSERT INTO turns (job, taken_at) VALUES (?, {now})", (job,))

    return work


def jobs(tx: Transaction) -> list[str]:
    return [row[0] for row in tx.execute("SELECT job FROM turns ORDER BY job").fetchall()]


async def fails_soon(call: Any) -> StoreError:
    started = time.monotonic()
    with pytest.raises(StoreError) as caught:
        await call
    assert time.monotonic() - started < BOUND_S + paced(0.5)
    assert caught.value.retry_after_s is not None and caught.value.retryable
    assert caught.value.message.startswith(
        ("the database cannot be reached", "the connection to the database")
    )
    return caught.value


async def test_a_write_is_there_for_everybody_when_it_is_acknowledged(
    database: PostgresDatabase, postgres_url: str
) -> None:
    await database.write(mark("a"), "k")
    async with database_at(postgres_url) as other:
        assert await other.read(jobs) == ["a"]


async def test_one_bad_write_of_a_group_costs_its_neighbours_nothing(database: PostgresDatabase) -> None:
    def lost(tx: Transaction) -> None:
        mark("of the loser")(tx)
        raise LeaseLost("taken over")

    works = [mark("a"), mark("b"), lost, mark("a"), mark("c"), mark("d")]
    outcomes = await asyncio.gather(
        *(database.write(work, "one run") for work in works), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [
        type(None), type(None), LeaseLost, Conflict, type(None), type(None),
    ]  # fmt: skip
    assert await database.read(jobs) == ["a", "b", "c", "d"]


_ADD = "INSERT INTO turns (job, taken_at) VALUES (?, 0.0) ON CONFLICT DO NOTHING"
_RAISE_HOT = "UPDATE turns SET taken_at = taken_at + 1 WHERE job = 'hot'"
_RAISES_FOR_EVER = f"""
import asyncio, sys
from actors.stores.connection_share import ConnectionShare
from actors.stores.postgres_database import PostgresDatabase

async def main():
    database = await PostgresDatabase.open(sys.argv[1], ConnectionShare(2, 6))
    print("ready", flush=True)
    while True:
        await database.write(raise_it, "k")

def raise_it(tx):
    return tx.changes_one({_RAISE_HOT!r}, ())

asyncio.run(main())
"""


def raise_hot(tx: Transaction) -> bool:
    return tx.changes_one(_RAISE_HOT, ())


def add(job: str, *rows: str) -> Work[str]:
    """A work that asks nothing, so that it may go in one message with its commit."""

    def work(tx: Transaction) -> str:
        if not tx.changes_one(_ADD, (job,)):
            raise LeaseLost(f"{job} was there")
        tx.executemany("INSERT INTO turns (job, taken_at) VALUES (?, {now})", [(row,) for row in rows])
        return job

    return work


async def test_what_is_taken_for_granted_and_is_not_so_costs_its_neighbours_nothing(
    database: PostgresDatabase,
) -> None:
    """Again and again: what libpq had prepared in a message that failed is not relied on."""
    for number in range(8):
        names = [f"{number}.{letter}" for letter in "abcd"]
        twice, rows = f"{number}.x", [f"{number}.{row}" for row in range(number)]
        works = [add(names[0]), add(names[1], twice), add(names[0], "lost"), add(names[2], twice)]
        writes = [database.write(work, "k") for work in [*works, add(names[3], *rows)]]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [o if isinstance(o, str) else type(o) for o in outcomes] == [
            names[0], names[1], LeaseLost, Conflict, names[3],
        ]  # fmt: skip
        kept = [job for job in await database.read(jobs) if job.startswith(f"{number}.")]
        assert kept == sorted([names[0], names[1], names[3], twice, *rows])
    assert "lost" not in await database.read(jobs)


async def test_a_work_that_asks_sees_what_came_before_it(database: PostgresDatabase) -> None:
    works: list[Work[Any]] = [add("a", "row"), jobs, add("b"), jobs]
    assert await asyncio.gather(*(database.write(work, "k") for work in works)) == [
        "a", ["a", "row"], "b", ["a", "b", "row"],
    ]  # fmt: skip


async def test_a_large_work_and_small_ones(database: PostgresDatabase) -> None:
    large = ["x" * 50_000 + str(number) for number in range(30)]
    works = [add("a"), add("b", *large), add("c", large[0][1:]), add("d")]
    assert await asyncio.gather(*(database.write(work, "k") for work in works)) == ["a", "b", "c", "d"]
    assert len(await database.read(jobs)) == 4 + 31


async def test_who_is_stopped_while_it_commits_holds_no_rows_for_long(server: OwnServer) -> None:
    """A batch is at the server whole or not at all: no other waits for one whose process is stopped."""
    async with database_at(server.url) as database:
        await database.write(add("hot"))
        stopped = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _RAISES_FOR_EVER, server.url, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert stopped.stdout is not None
            assert await asyncio.wait_for(stopped.stdout.readline(), 60) == b"ready\n"
            for number in range(100):
                stopped.send_signal(signal.SIGSTOP)
                # Who waits for a lock is refused by the server after LOCK_TIMEOUT_S; this is for what hangs.
                assert await asyncio.wait_for(database.write(raise_hot), paced(LOCK_TIMEOUT_S)), number
                stopped.send_signal(signal.SIGCONT)
                await asyncio.sleep(number % 7 / 2000)
        finally:
            stopped.kill()
            await stopped.wait()


async def test_writes_of_one_key_keep_their_order(database: PostgresDatabase) -> None:
    order: list[int] = []

    def work(number: int) -> Work[None]:
        return lambda tx: order.append(number)

    await asyncio.gather(*(database.write(work(number), f"run {number % 3}") for number in range(300)))
    for run in range(3):
        assert [number for number in order if number % 3 == run] == list(range(run, 300, 3))


async def test_a_work_that_swallows_a_fault_is_not_acknowledged(database: PostgresDatabase) -> None:
    def work(tx: Transaction) -> None:
        mark("a")(tx)
        try:
            tx.execute("SELECT 1 / 0").fetchone()
        except psycopg.Error:
            return

    with pytest.raises(StoreError):
        await database.write(work)
    assert await database.read(jobs) == []


async def test_two_that_lock_each_other_out_both_get_through(postgres_url: str) -> None:
    both_hold_one = threading.Barrier(2)

    def raise_it(tx: Transaction, job: str) -> None:
        sql = "UPDATE turns SET taken_at = taken_at + 1 WHERE job = ?"
        assert tx.execute(sql, (job,)).rowcount == 1

    def crossing(first: str, second: str) -> Work[None]:
        tries = count()

        def work(tx: Transaction) -> None:
            raise_it(tx, first)
            if next(tries) == 0:
                both_hold_one.wait(10)
            raise_it(tx, second)

        return work

    async with database_at(postgres_url) as one, database_at(postgres_url) as two:
        await one.write(add("a"))
        await one.write(add("b"))
        await asyncio.gather(one.write(crossing("a", "b")), two.write(crossing("b", "a")))
        rows = await one.read(lambda tx: tx.execute("SELECT job, taken_at FROM turns").fetchall())
        assert dict(rows) == {"a": 2.0, "b": 2.0}


async def test_claims_pass_each_other(postgres_url: str) -> None:
    """A row that one transaction holds is skipped by another, and nobody waits."""
    both_have_one = threading.Barrier(2)

    def take(tx: Transaction) -> str:
        job = tx.execute("SELECT job FROM turns ORDER BY job LIMIT 1 {skip_locked}").fetchone()[0]
        both_have_one.wait(10)
        return job

    async with database_at(postgres_url) as one, database_at(postgres_url) as two:
        await one.write(mark("a"))
        await one.write(mark("b"))
        assert sorted(await asyncio.gather(one.write(take), two.write(take))) == ["a", "b"]


async def test_one_snapshot_for_a_whole_read(database: PostgresDatabase) -> None:
    loop = asyncio.get_running_loop()

    def look_twice(tx: Transaction) -> tuple[list[str], list[str]]:
        before = jobs(tx)
        asyncio.run_coroutine_threadsafe(database.write(mark("between")), loop).result(10)
        return before, jobs(tx)

    assert await database.read(look_twice) == ([], [])
    assert await database.read(jobs) == ["between"]


async def test_values_come_back_as_they_went_in(database: PostgresDatabase) -> None:
    def work(tx: Transaction) -> Any:
        tx.execute("INSERT INTO turns (job, taken_at) VALUES (?, ?)", ("100 % {x} ? ’\x00", 0.1 + 0.2))
        total = tx.execute("SELECT SUM(5), AVG(taken_at), MAX(job) FROM turns").fetchone()
        return (*total, type(total[0]))

    assert await database.write(work) == (5, 0.1 + 0.2, "100 % {x} ? ’\ufffd", int)


async def test_a_full_disk_is_said_and_recovers(database: PostgresDatabase) -> None:
    def full(tx: Transaction) -> None:
        mark("lost")(tx)
        tx.execute("DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$")

    outcomes = await asyncio.gather(
        *(database.write(work, "k") for work in (mark("a"), full, mark("b"))), return_exceptions=True
    )
    assert isinstance(outcomes[1], StoreFull) and outcomes[1].retry_after_s
    assert await database.read(jobs) == ["a", "b"]


async def test_no_more_connections_than_its_share(postgres_url: str) -> None:
    async with database_at(postgres_url, ConnectionShare(2, 4), name="counted") as database:
        transactor = database.open_transactor()
        await asyncio.to_thread(transactor.run, lambda tx: tx.execute("SELECT 1").fetchone())

        def count(tx: Transaction) -> int:
            sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = ?"
            found = int(tx.execute(sql, ("counted",)).fetchone()[0])
            time.sleep(0.01)
            return found

        reads = [database.read(count) for _ in range(40)]
        writes = [database.write(count, f"run {number}") for number in range(40)]
        counts = await asyncio.gather(*reads, *writes)
        assert 3 <= max(counts) <= 4 + 1
        transactor.close()


async def test_a_process_that_stood_still_looks_for_its_connection_once_more(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it goes on its patience is over, and the connection is there."""
    monkeypatch.setattr("actors.stores.postgres_pool.BORROW_TIMEOUT_S", 0.0)
    monkeypatch.setattr("actors.stores.postgres_pool._TRY_S", 30.0)
    async with database_at(postgres_url) as database:
        assert await database.read(jobs) == []


async def test_no_message_holds_the_password(server: OwnServer) -> None:
    secret = "Zebra-Zweig"
    with pytest.raises(StoreError) as refused:
        await PostgresDatabase.open(f"postgresql://nobody:{secret}@127.0.0.1:1/x", SHARE)
    wrong_role = server.url.replace("postgres@", f"nobody_there:{secret}@")
    with pytest.raises(StoreError) as unknown:
        await PostgresDatabase.open(wrong_role, SHARE)
    with pytest.raises(ValidationError) as unread:
        await PostgresDatabase.open(f"postgresql://u:{secret}%zz@127.0.0.1/x?nonsense=1", SHARE)
    for error in (refused, unknown, unread):
        assert secret not in str(error.value) and secret not in repr(error.value.__cause__)
    assert "nobody_there" in str(unknown.value)


async def test_a_server_that_was_restarted_in_between_is_not_noticed(server: OwnServer) -> None:
    async with database_at(server.url) as database:
        transactor = database.open_transactor()
        transactor.run(lambda tx: None)
        await database.write(mark("before the restart"))
        server.stop()
        server.start()
        await database.write(mark("after the restart"))
        assert {"before the restart", "after the restart"} <= set(await database.read(jobs))
        transactor.run(lambda tx: None)
        transactor.close()


@pytest.mark.parametrize("how", ["stopped", "killed", "frozen"])
async def test_a_server_that_is_away_is_said_soon_and_found_again(server: OwnServer, how: str) -> None:
    end = {"stopped": server.stop, "killed": server.kill, "frozen": server.freeze}[how]
    back = server.thaw if how == "frozen" else server.start
    async with database_at(server.url) as database:
        await database.write(mark(f"before it was {how}"))
        end()
        try:
            under_way = [asyncio.ensure_future(database.write(mark(f"{how} {n}"), "k")) for n in range(200)]
            await fails_soon(database.read(jobs))
            await fails_soon(database.write(mark(f"while {how}"), "other"))
            with capture_logs() as lines:
                await fails_soon(asyncio.gather(*(database.read(jobs) for _ in range(100))))
            assert len([line for line in lines if line["event"] == "database_fault"]) < 5
        finally:
            back()
        outcomes = await asyncio.wait_for(asyncio.gather(*under_way, return_exceptions=True), 10)
        assert all(outcome is None or isinstance(outcome, StoreError) for outcome in outcomes)

        async def writes_again() -> bool:
            try:
                await database.write(mark(f"after it was {how} {time.monotonic()}"))
            except StoreError:
                return False
            return True

        await until(writes_again, 5)
        kept = set(await database.read(jobs))
        acknowledged = {f"{how} {n}" for n, outcome in enumerate(outcomes) if outcome is None}
        assert acknowledged <= kept and f"before it was {how}" in kept


async def test_nothing_acknowledged_is_lost_when_the_server_dies_again_and_again(server: OwnServer) -> None:
    acknowledged: set[str] = set()
    async with database_at(server.url) as database:

        async def write_on(writer: int) -> None:
            for number in range(60):
                job = f"survivor {writer}.{number}"
                while job not in acknowledged:
                    try:
                        await database.write(mark(job), f"writer {writer}")
                    except StoreError:
                        await asyncio.sleep(0.05)
                    except Conflict:
                        # A commit whose answer was lost had been made.
                        pass
                    else:
                        acknowledged.add(job)
                        continue
                    if job in await known(database):
                        acknowledged.add(job)

        writers = asyncio.gather(*(write_on(writer) for writer in range(8)))
        for number in range(4):
            await asyncio.sleep(0.1)
            if number % 2:
                await asyncio.to_thread(server.kill)
            else:
                await asyncio.to_thread(server.stop, signal.SIGQUIT)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.start)
        await asyncio.wait_for(writers, 60)
        assert {job for job in await database.read(jobs) if job.startswith("survivor")} == acknowledged
        assert len(acknowledged) == 8 * 60


async def known(database: PostgresDatabase) -> set[str]:
    try:
        return set(await database.read(jobs))
    except StoreError:
        return set()


async def test_a_closed_database_says_so(postgres_url: str) -> None:
    async with database_at(postgres_url) as database:
        await database.write(mark("a"))
    await database.close()
    with pytest.raises(StoreError, match="closed"):
        await database.write(mark("b"))
    with pytest.raises(StoreError, match="closed"):
        await database.read(jobs)


async def test_many_that_start_at_once_make_one_schema(postgres_url: str) -> None:
    opened = await asyncio.gather(
        *(PostgresDatabase.open(postgres_url, ConnectionShare(1, 2)) for _ in range(8))
    )
    assert await opened[0].read(jobs) == []
    for database in opened:
        await database.close()


@pytest.mark.parametrize("rows", [0, 1, 5])
async def test_who_stops_in_the_middle_of_a_transaction_lets_go_of_its_rows(
    postgres_url: str, rows: int
) -> None:
    """Whatever it had done last: a pipeline would switch the server's timeout off."""

    def raise_it(tx: Transaction) -> None:
        assert tx.execute("UPDATE turns SET taken_at = taken_at + 1 WHERE job = 'a'").rowcount == 1

    def stop_with_it(tx: Transaction) -> None:
        raise_it(tx)
        tx.executemany(
            "INSERT INTO turns (job, taken_at) VALUES (?, {now})", [(f"of {n}",) for n in range(rows)]
        )
        holding.set()
        # As a process that was stopped: nothing is sent any more, and the connection stays open.
        assert over.wait(30)

    holding, over = threading.Event(), threading.Event()
    async with database_at(postgres_url) as stopped, database_at(postgres_url) as other:
        await other.write(mark("a"))
        held = asyncio.ensure_future(stopped.write(stop_with_it))
        await asyncio.to_thread(holding.wait, 10)
        with pytest.raises(StoreError):
            await other.write(raise_it)

        async def raised() -> bool:
            try:
                await other.write(raise_it)
            except StoreError:
                return False
            return True

        await until(raised, IDLE_IN_TRANSACTION_S + 5)
        over.set()
        with pytest.raises(StoreError):
            await held


async def test_a_server_too_small_for_all_nodes_is_refused_at_the_start() -> None:
    with own_postgres("max_connections=30") as small:
        config = RuntimeConfig(home="/nowhere", store_url=small.url)
        await check_connections(config, nodes=1)
        with pytest.raises(
            ValidationError, match=r"27 free .*max_connections 30, 3 reserved, 0 held.* open 40"
        ):
            await check_connections(config, nodes=2)
        others = [psycopg.connect(small.url) for _ in range(8)]
        with pytest.raises(ValidationError, match="8 held by others"):
            await check_connections(config, nodes=1)
        # This runtime's own connections (after a crash, say) are part of what it asks for.
        async with database_at(small.url, ConnectionShare(4, 4), name=postgres_name(config)) as database:
            await database.read(jobs)
            for other in others:
                other.close()
            await check_connections(config, nodes=1)


async def test_nothing_is_asked_of_sqlite(tmp_path: Path) -> None:
    await check_connections(RuntimeConfig(home=str(tmp_path)), nodes=1000)
    assert list(tmp_path.iterdir()) == []


async def test_a_database_that_cannot_hold_every_text_is_refused(server: OwnServer) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE western ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(ValidationError, match=r"LATIN1.*UTF8"):
        await PostgresDatabase.open(server.url.removesuffix("postgres") + "western", SHARE)
