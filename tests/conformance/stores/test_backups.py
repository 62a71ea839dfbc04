"""Backups of databases in use, brought back into any kind of database."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from itertools import count, product
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from actors.stores.backup import columns_of, read_pages, write_backup
from actors.stores.backup_file import BackupWriter, Manifest, open_backup
from actors.stores.backup_source import backup_source
from actors.stores.database import Database, Transaction
from actors.stores.open_database import open_database, postgres_name
from actors.stores.open_store import open_store
from actors.stores.records import CallClaim, CallState, RunWrite
from actors.stores.restore import restore_backup
from actors.stores.schema import MIGRATIONS
from actors.stores.store import Store
from actors.stores.table_layout import common_tables
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import Conflict, StoreError, StoreFull, ValidationError
from registries.contracts.runs import Feedback
from tests.conformance.stores import sample_runs as sample
from tests.polling import until
from tests.postgres_server import own_schema

BACKENDS = ("sqlite", "postgresql")
LEASED = ("runs", "kept_calls")
NewConfig = Callable[[str], RuntimeConfig]


@pytest.fixture
def new_config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewConfig]:
    """The configuration of an empty database of this backend, another at each call."""
    with ExitStack() as schemas:
        numbers = count()

        def new(backend: str) -> RuntimeConfig:
            if backend == "sqlite":
                url = f"sqlite://{tmp_path / f'{next(numbers)}.db'}"
            else:
                url = schemas.enter_context(own_schema(request.getfixturevalue("postgres_dsn")))
            return RuntimeConfig(home=str(tmp_path), store_url=url)

        yield new


@asynccontextmanager
async def opened(config: RuntimeConfig) -> AsyncIterator[Database]:
    database = await open_database(config)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def store_of(config: RuntimeConfig) -> AsyncIterator[Store]:
    store = await open_store(config)
    try:
        yield store
    finally:
        await store.close()


async def fill(config: RuntimeConfig) -> None:
    """Something in every table: ended, queued, running and waiting runs, with odd texts and bytes."""
    async with store_of(config) as store:
        for number in range(7):
            claimed = await sample.take(store, f"ended-{number}", key=sample.key(f"k{number}"))
            state = sample.checkpoint(f"ended-{number}", data=bytes(range(256)))
            task = sample.task_write(f"ended-{number}")
            events = (sample.event(f"ended-{number}", 2, "run.started"),)
            await store.commit(claimed.lease, RunWrite(events, (state,), (task,)))
            await sample.end(store, claimed, seq=3)
        await store.give_feedback(
            "ended-0", "default", "u", Feedback(rating=0.1 + 0.2, comment="Ünïcode ’%?{x}")
        )
        await store.accept(sample.new_run("queued", prompt="line\nline\u2028 \x7f {now} ? %s"))
        await sample.take(store, "running")
        held = await sample.take(store, "waiting")
        await store.wait(held.lease, sample.WAITING, sample.write(held.lease, 2, "run.waiting"))
        assert await store.turn("prune", 3600)
        for name in ("answered", "under way"):
            call = CallClaim("default", name, "old runtime:1", name, 600.0)
            await store.claim_call(sample.key(name), call)
            if name == "answered":
                await store.keep_answer(call, '{"text": "85"}')


async def back_up(config: RuntimeConfig, path: Path) -> Manifest:
    return await asyncio.to_thread(write_backup, backup_source(config), path)


async def content(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, by column name; without what a restore gives back, leases and time."""

    def read(tx: Transaction) -> dict[str, list[tuple[Any, ...]]]:
        found = {}
        for table in common_tables():
            names = sorted(set(columns_of(tx, table.name)) - {"lease_until", "deadline_at"})
            rows = tx.execute(f"SELECT {', '.join(names)} FROM {table.name}").fetchall()
            found[table.name] = sorted((tuple(row) for row in rows), key=repr)
        return found

    return await database.read(read)


@pytest.mark.parametrize(("source", "target"), list(product(BACKENDS, BACKENDS)))
async def test_what_is_restored_is_what_was_backed_up(
    source: str, target: str, new_config: NewConfig, tmp_path: Path
) -> None:
    first, second = new_config(source), new_config(target)
    await fill(first)
    manifest = await back_up(first, tmp_path / "x.backup")
    async with opened(first) as database:
        before = await content(database)
    assert all(before[table.name] for table in common_tables())
    assert {part.table: part.rows for part in manifest.parts} == {t: len(rows) for t, rows in before.items()}
    async with opened(second) as database:
        restored = await restore_backup(database, tmp_path / "x.backup")
        assert restored == manifest and restored.backend == source
        assert await content(database) == before
    again = await back_up(second, tmp_path / "y.backup")
    # Those with leases, which a restore gives back, are left out.
    digests = {part.table: part.sha256 for part in manifest.parts if part.table not in LEASED}
    assert {part.table: part.sha256 for part in again.parts if part.table not in LEASED} == digests


@pytest.mark.parametrize("backend", BACKENDS)
async def test_restored_runs_go_on(backend: str, new_config: NewConfig, tmp_path: Path) -> None:
    first, second = new_config(backend), new_config(backend)
    await fill(first)
    await back_up(first, tmp_path / "x.backup")
    async with opened(second) as database:
        await restore_backup(database, tmp_path / "x.backup")
    async with store_of(second) as store:
        assert await store.release_orphans("new runtime:") == 1
        claimed = await store.claim_next("new runtime:1", 60.0, 3, 10)
        assert {run.order.run_id for run in claimed} == {"queued", "running"}
        accepted = await store.accept(sample.new_run("another", key=sample.key("k3")))
        assert (accepted.run_id, accepted.created) == ("ended-3", False)
        assert await sample.types_of(store, "running") == ["run.queued", "run.released"]


OLD_S = 5 * 3600.0
"""Far longer than the deadlines of the sample runs."""


@pytest.mark.parametrize(("source", "target"), list(product(BACKENDS, BACKENDS)))
async def test_restored_runs_have_the_time_that_they_had_left(
    source: str, target: str, new_config: NewConfig, tmp_path: Path
) -> None:
    first, second = new_config(source), new_config(target)
    await fill(first)
    async with opened(first) as database:
        # What a backup of five hours ago holds: its deadlines, and when it was made.
        await database.write(lambda tx: tx.execute("UPDATE runs SET deadline_at = deadline_at - ?", (OLD_S,)))
        before = await database.read(_deadlines)
    manifest = await back_up(first, tmp_path / "x.backup")
    _make_older(tmp_path / "x.backup", manifest.created_at - OLD_S)
    async with opened(second) as database:
        await restore_backup(database, tmp_path / "x.backup")
        after = await database.read(_deadlines)
    moved = {run_id: after[run_id] - before[run_id] for run_id in before}
    unfinished = {"queued", "running"}
    assert all(OLD_S <= moved[run_id] < OLD_S + 60 for run_id in unfinished)
    assert {moved[run_id] for run_id in moved.keys() - unfinished} == {0.0}
    async with store_of(second) as store:
        claimed = await store.claim_next("new runtime:1", 60.0, 3, 10)
        assert {run.order.run_id for run in claimed} == unfinished
        assert all(200 < run.order.deadline_s <= 300 for run in claimed)


def _deadlines(tx: Transaction) -> dict[str, float]:
    return {row[0]: row[1] for row in tx.execute("SELECT run_id, deadline_at FROM runs").fetchall()}


def _make_older(path: Path, created_at: float) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    manifest = {**json.loads(parts["manifest.json"]), "created_at": created_at}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, text in {**parts, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(entry, text)


async def test_a_read_that_is_lost_at_its_end_leaves_no_file(
    new_config: NewConfig, postgres_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = new_config("postgresql").model_copy(update={"instance": "backup-lost-at-its-end"})
    await fill(config)
    folder = tmp_path / "backups"
    folder.mkdir()
    finish = BackupWriter.finish

    def finish_and_lose(writer: BackupWriter, *facts: Any) -> Manifest:
        manifest = finish(writer, *facts)
        with psycopg.connect(postgres_dsn, autocommit=True) as other:
            ended = other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
                (postgres_name(config),),
            ).fetchall()
        assert ended == [(True,)]
        return manifest

    monkeypatch.setattr(BackupWriter, "finish", finish_and_lose)
    for _ in range(2):
        with pytest.raises(StoreError, match="connection"):
            await back_up(config, folder / "x.backup")
        assert list(folder.iterdir()) == []
    monkeypatch.undo()
    await back_up(config, folder / "x.backup")
    assert [path.name for path in folder.iterdir()] == ["x.backup"]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_disk_that_is_full_is_not_taken_for_the_database_s(
    backend: str, new_config: NewConfig, tmp_path: Path
) -> None:
    config = new_config(backend)
    async with store_of(config) as store:
        # More than any buffer holds, so that it is met in the middle of the read.
        await store.accept(sample.new_run("r1", prompt=Random(1).randbytes(300_000).hex()))
    (tmp_path / ".x.backup.part").symlink_to("/dev/full")
    with pytest.raises(StoreFull, match=r"the backup .* cannot be written"):
        await back_up(config, tmp_path / "x.backup")
    assert not list(tmp_path.glob("*x.backup*"))


@pytest.mark.parametrize("backend", BACKENDS)
async def test_no_transaction_waits_for_the_disk(
    backend: str, new_config: NewConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = new_config(backend)
    await fill(config)
    steps: list[str] = []
    source = backup_source(config)

    class Watched:
        backend = source.backend

        def read(self, work: Any) -> Any:
            answer = source.read(work)
            steps.append("read")
            return answer

    flush = os.fsync

    def flush_and_say(descriptor: int) -> None:
        steps.append("flushed")
        flush(descriptor)

    monkeypatch.setattr("os.fsync", flush_and_say)
    await asyncio.to_thread(write_backup, Watched(), tmp_path / "x.backup")
    assert steps == ["read", "flushed", "flushed"]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_restored_answers_are_there_and_restored_calls_are_free(
    backend: str, new_config: NewConfig, tmp_path: Path
) -> None:
    first, second = new_config(backend), new_config(backend)
    await fill(first)
    await back_up(first, tmp_path / "x.backup")
    async with opened(second) as database:
        await restore_backup(database, tmp_path / "x.backup")
    async with store_of(second) as store:
        answer = CallState("answered", '{"text": "85"}')
        assert await store.look_at_call("default", sample.key("answered")) == answer
        assert await store.look_at_call("default", sample.key("under way")) == CallState("free")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_backup_while_writers_write_is_one_moment(
    backend: str, new_config: NewConfig, tmp_path: Path
) -> None:
    first, second = new_config(backend), new_config(backend)
    stop = asyncio.Event()
    ended: list[str] = []

    async def write_on(store: Store, writer: int) -> None:
        number = 0
        while not stop.is_set():
            run_id = f"w{writer}-{number:05}"
            claimed = await sample.take(store, run_id)
            for seq in (2, 4):
                events = sample.write(claimed.lease, seq, "node.started", "node.completed").events
                await store.commit(claimed.lease, RunWrite(events, (sample.checkpoint(run_id, f"c{seq}"),)))
            await sample.end(store, claimed, seq=6)
            ended.append(run_id)
            number += 1

    async with store_of(first) as store:
        writers = [asyncio.ensure_future(write_on(store, writer)) for writer in range(8)]
        known: list[set[str]] = []
        for number in range(3):
            wanted = 40 * (number + 1)
            await until(lambda wanted=wanted: len(ended) >= wanted, 60)  # type: ignore[misc]
            known.append(set(ended))
            await back_up(first, tmp_path / f"{number}.backup")
        stop.set()
        await asyncio.gather(*writers)
    for number in range(3):
        async with opened(second) as database:
            await restore_backup(database, tmp_path / f"{number}.backup", replace=True)
            found = await database.read(_runs_with_events)
        assert known[number] <= {run_id for run_id, (status, *_) in found.items() if status == "completed"}
        for status, last_seq, seqs, checkpoints, has_result in found.values():
            assert seqs == list(range(1, last_seq + 1))
            assert has_result == (status == "completed") == (last_seq == 6)
            assert checkpoints == min(2, (last_seq - 1) // 2)


def _runs_with_events(tx: Transaction) -> dict[str, tuple[Any, ...]]:
    found = {}
    for run_id, status, last_seq, result in tx.execute(
        "SELECT run_id, status, last_seq, result FROM runs"
    ).fetchall():
        rows = tx.execute("SELECT seq FROM events WHERE run_id = ? ORDER BY seq", (run_id,)).fetchall()
        states = tx.execute("SELECT COUNT(*) FROM checkpoints WHERE thread_id = ?", (run_id,)).fetchone()[0]
        found[run_id] = (status, last_seq, [row[0] for row in rows], states, result is not None)
    return found


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_database_with_rows_is_given_up_only_when_asked(
    backend: str, new_config: NewConfig, tmp_path: Path
) -> None:
    first, second = new_config(backend), new_config(backend)
    await fill(first)
    await back_up(first, tmp_path / "x.backup")
    async with opened(first) as database:
        wanted = await content(database)
    async with store_of(second) as store:
        await sample.end(store, await sample.take(store, "of today"))
    async with opened(second) as database:
        before = await content(database)
        with pytest.raises(Conflict, match="--replace"):
            await restore_backup(database, tmp_path / "x.backup")
        assert await content(database) == before
        await restore_backup(database, tmp_path / "x.backup", replace=True)
        assert await content(database) == wanted


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_database_whose_runs_somebody_runs_is_left_alone(
    backend: str, new_config: NewConfig, tmp_path: Path
) -> None:
    config = new_config(backend)
    await fill(config)
    await back_up(config, tmp_path / "x.backup")
    async with opened(config) as database:
        with pytest.raises(Conflict, match="parley down"):
            await restore_backup(database, tmp_path / "x.backup", replace=True)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_restore_that_fails_in_the_middle_changes_nothing(
    backend: str, new_config: NewConfig, tmp_path: Path
) -> None:
    first, second = new_config(backend), new_config(backend)
    await fill(first)
    await back_up(first, tmp_path / "x.backup")
    _change(tmp_path / "x.backup", "tables/usage.jsonl", b'"duration_s"', b'"duration_t"', keep_digest=True)
    async with opened(second) as database:
        with pytest.raises(ValidationError, match="table usage has other columns"):
            await restore_backup(database, tmp_path / "x.backup")
        assert not any((await content(database)).values())


def _change(path: Path, name: str, old: bytes, new: bytes, keep_digest: bool) -> None:
    """Replace bytes of one part; the manifest vouches for them again with ``keep_digest``."""
    with zipfile.ZipFile(path) as archive:
        parts = {entry: archive.read(entry) for entry in archive.namelist()}
    before = parts[name]
    parts[name] = before.replace(old, new)
    assert parts[name] != before
    if keep_digest:
        digests = (hashlib.sha256(text).hexdigest().encode() for text in (before, parts[name]))
        parts["manifest.json"] = parts["manifest.json"].replace(*digests)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, text in parts.items():
            archive.writestr(entry, text)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_older_schema_is_migrated_forward(
    backend: str, new_config: NewConfig, tmp_path: Path
) -> None:
    first, second = new_config(backend), new_config(backend)
    await fill(first)
    await back_up(first, tmp_path / "x.backup")
    newest = max(MIGRATIONS[backend])
    later = {
        **MIGRATIONS[backend],
        newest + 1: (
            "ALTER TABLE runs ADD COLUMN colour TEXT",
            "UPDATE runs SET colour = status",
        ),
    }
    async with opened(second) as database:
        await database.write(_add_colour)
        with pytest.raises(ValidationError, match="other columns"):
            await restore_backup(database, tmp_path / "x.backup")
        await database.write(lambda tx: _raise_version(tx, newest + 1))
        await restore_backup(database, tmp_path / "x.backup", migrations=later)
        colours = await database.read(
            lambda tx: tx.execute("SELECT COUNT(*) FROM runs WHERE colour = status").fetchone()[0]
        )
        assert colours == 10
        with pytest.raises(ValidationError, match="knows 1 at most"):
            await restore_backup(database, tmp_path / "x.backup", True, {1: ()})
        with pytest.raises(ValidationError, match="never had"):
            await restore_backup(database, tmp_path / "x.backup", True, {newest + 5: ()})


def _add_colour(tx: Transaction) -> None:
    tx.execute("ALTER TABLE runs ADD COLUMN colour TEXT")


def _raise_version(tx: Transaction, version: int) -> None:
    tx.execute("INSERT INTO migrations (version, applied_at) VALUES (?, {now})", (version,))


async def test_large_rows_are_read_a_few_at_a_time(new_config: NewConfig, tmp_path: Path) -> None:
    config = new_config("sqlite")
    async with store_of(config) as store:
        for number in range(40):
            await store.accept(sample.new_run(f"r{number:02}", prompt="x" * 500_000))
    async with opened(config) as database:
        runs = common_tables()[0]
        pages = await database.read(
            lambda tx: [len(page) for page in read_pages(tx, runs, columns_of(tx, runs.name))]
        )
        assert sum(pages) == 40 and max(pages[1:], default=0) <= 5
    await back_up(config, tmp_path / "x.backup")
    with open_backup(tmp_path / "x.backup") as backup:
        sizes = [len(page) for page in backup.pages("runs")]
    assert sum(sizes) == 40 and max(sizes) <= 5
