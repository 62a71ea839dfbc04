"""What a backup reads is left as it is: nothing is made for it, and nothing migrated."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from actors.stores.backup import write_backup
from actors.stores.backup_file import open_backup
from actors.stores.backup_source import backup_source
from actors.stores.database import Transaction
from actors.stores.machine_clock import MachineClock
from actors.stores.migrations import migrate, schema_version
from actors.stores.open_database import open_database, parse_sqlite_url
from actors.stores.open_store import open_store
from actors.stores.postgres_connection import IDLE_IN_TRANSACTION_S
from actors.stores.postgres_transaction import PostgresTransaction
from actors.stores.postgres_url import parse_postgres_url
from actors.stores.restore import restore_backup
from actors.stores.schema import MIGRATIONS
from actors.stores.sqlite_connection import SqliteTransaction
from actors.stores.table_layout import common_tables, table_names
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import NotFound, StoreError
from tests.conformance.stores.conftest import URL_FIXTURES
from tests.conformance.stores.sample_runs import new_run
from tests.postgres_server import own_schema

OLDER = [
    (backend, version) for backend, known in MIGRATIONS.items() for version in known if version < max(known)
]
REQUEST = json.dumps({"prompt": "What is 48 + 37?", "flow_type": "challenge"})
_COMMON = "run_id, tenant, request_id, flow, flow_version, status, request, created_at"


@contextmanager
def transaction(config: RuntimeConfig) -> Iterator[Transaction]:
    """One on a database that nothing prepared: a file or a schema, which is made."""
    if config.store_url.startswith("sqlite"):
        path = parse_sqlite_url(config.store_url).path
        path.parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("BEGIN")
            yield SqliteTransaction(file, MachineClock())
            file.execute("COMMIT")
        return
    address = parse_postgres_url(config.store_url)
    with psycopg.connect(address.conninfo) as connection:
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{address.schema}"'.encode())
        connection.execute(f'SET search_path = "{address.schema}"'.encode())
        yield PostgresTransaction(connection)


@pytest.fixture(params=list(URL_FIXTURES))
def config(request: pytest.FixtureRequest, tmp_path: Path) -> RuntimeConfig:
    """Of a database that is not there."""
    return RuntimeConfig(home=str(tmp_path), store_url=request.getfixturevalue(URL_FIXTURES[request.param]))


def test_what_is_not_there_is_not_made(config: RuntimeConfig, tmp_path: Path) -> None:
    is_file = config.store_url.startswith("sqlite")
    missing = "database .*runs.db" if is_file else f"schema {parse_postgres_url(config.store_url).schema}"
    # Twice: the first look has not made it either.
    for _ in range(2):
        with pytest.raises(NotFound, match=f"no {missing}; check .*PARLEY_STORE_URL"):
            write_backup(backup_source(config), tmp_path / "x.backup")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_is_left_alone(config: RuntimeConfig, tmp_path: Path) -> None:
    with transaction(config) as tx:
        tx.execute("CREATE TABLE migrations (id {int} PRIMARY KEY)")
    with pytest.raises(NotFound, match=r"no tables of Parley; check .*PARLEY_STORE_URL"):
        write_backup(backup_source(config), tmp_path / "x.backup")
    assert not (tmp_path / "x.backup").exists()
    with transaction(config) as tx:
        assert tx.execute("SELECT COUNT(*) FROM migrations").fetchone()[0] == 0


async def test_a_newer_schema_is_refused(config: RuntimeConfig, tmp_path: Path) -> None:
    await (await open_store(config)).close()
    with transaction(config) as tx:
        tx.execute("INSERT INTO migrations (version, applied_at) VALUES (99, {now})")
    with pytest.raises(StoreError, match=r"version 99.* at most"):
        write_backup(backup_source(config), tmp_path / "x.backup")
    assert not (tmp_path / "x.backup").exists()


@pytest.mark.parametrize(("backend", "version"), OLDER)
async def test_an_older_schema_is_read_as_it_is_and_comes_forward_at_the_restore(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str, version: int
) -> None:
    url = request.getfixturevalue(URL_FIXTURES[backend])
    older = RuntimeConfig(home=str(tmp_path), store_url=url)
    known = MIGRATIONS[backend]
    with transaction(older) as tx:
        migrate(tx, {number: known[number] for number in known if number <= version})
        _put_run(tx, version)
    manifest = write_backup(backup_source(older), tmp_path / "x.backup")
    assert manifest.schema_version == version
    with transaction(older) as tx:
        assert schema_version(tx) == version
    with open_backup(tmp_path / "x.backup") as backup:
        assert backup.columns("runs")[0] == "run_id"
    # Into the same database, which its program has brought forward meanwhile.
    database = await open_database(older)
    await restore_backup(database, tmp_path / "x.backup", replace=True)
    await database.close()
    store = await open_store(older)
    (claimed,) = await store.claim_next("new runtime:1", 60.0, 3, 10)
    assert claimed.order.run_id == "r1" and claimed.order.request.prompt == "What is 48 + 37?"
    assert 200 < claimed.order.deadline_s <= 300
    assert (await store.facts()).schema_version == max(MIGRATIONS[backend])
    await store.close()


def _put_run(tx: Transaction, version: int) -> None:
    values = ("r1", "default", "q", "challenge", "v1", "queued", REQUEST, time.time(), "ann")
    marks = ", ".join("?" * len(values))
    if version == 1:
        tx.execute(f"INSERT INTO runs ({_COMMON}, user) VALUES ({marks})", values)
        return
    columns = f"{_COMMON}, user_name, queued_at, deadline_at"
    tx.execute(f"INSERT INTO runs ({columns}) VALUES ({marks}, {{now}}, {{now}} + 300)", values)


async def test_a_work_that_is_slow_between_two_queries_keeps_its_snapshot(
    postgres_dsn: str, tmp_path: Path
) -> None:
    with own_schema(postgres_dsn) as url:
        config = RuntimeConfig(home=str(tmp_path), store_url=url)
        store = await open_store(config)
        await store.accept(new_run("r1"))
        await store.close()

        def slow(tx: Transaction) -> list[int]:
            counts = []
            for pause_s in (IDLE_IN_TRANSACTION_S + 1.0, 0.0):
                counts.append(tx.execute("SELECT COUNT(*) FROM runs").fetchone()[0])
                time.sleep(pause_s)
            return counts

        assert backup_source(config).read(slow) == [1, 1]


@pytest.mark.parametrize(("backend", "version"), OLDER)
def test_no_table_of_an_older_schema_is_left_out(backend: str, version: int) -> None:
    known = MIGRATIONS[backend]
    made = table_names({number: known[number] for number in known if number <= version})
    # What belongs to one machine; a migration that drops a table has to tell the backup of it.
    assert set(made) - {"lease_clock"} <= {table.name for table in common_tables()}
