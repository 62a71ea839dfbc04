"""Backups on a schedule: once a turn, the newest stay, a failed one is owed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.running.scheduled_backup import ScheduledBackup, remove_old_backups
from actors.stores.backup_file import open_backup
from actors.stores.backup_source import BackupSource, backup_source
from actors.stores.database import Work
from actors.stores.open_store import open_store
from actors.stores.store import Store
from registries.contracts.config import BackupConfig, RuntimeConfig
from registries.contracts.errors import StoreError, StoreFull
from tests.conformance.stores.sample_runs import new_run
from tests.polling import until


@pytest.fixture
def config(tmp_path: Path) -> RuntimeConfig:
    return RuntimeConfig(home=str(tmp_path), backup=BackupConfig(every_h=24, keep=2))


@pytest.fixture
async def store(config: RuntimeConfig) -> AsyncIterator[Store]:
    opened = await open_store(config)
    await opened.accept(new_run("r1"))
    yield opened
    await opened.close()


async def test_one_turn_is_one_backup_for_all_runners(
    store: Store, config: RuntimeConfig, tmp_path: Path
) -> None:
    for _ in range(3):
        await ScheduledBackup(store, config).back_up()
    (made,) = (tmp_path / "backups").iterdir()
    with open_backup(made) as backup:
        assert [part.rows for part in backup.manifest.parts if part.table == "runs"] == [1]


async def test_without_a_schedule_there_is_none(store: Store, config: RuntimeConfig, tmp_path: Path) -> None:
    await ScheduledBackup(store, config.model_copy(update={"backup": BackupConfig()})).back_up()
    assert not (tmp_path / "backups").exists()


async def test_only_the_newest_stay(store: Store, config: RuntimeConfig, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    for name in ("parley-20250101T000000Z.backup", "parley-20250102T000000Z.backup", "mine.backup"):
        (folder / name).write_text("")
    (folder / ".parley-20250103T000000Z.backup.part").write_text("left by one that was killed")
    await ScheduledBackup(store, config).back_up()
    names = sorted(path.name for path in folder.iterdir())
    assert names[:2] == ["mine.backup", "parley-20250102T000000Z.backup"] and len(names) == 3


async def test_a_failed_backup_is_tried_again_before_the_next_turn(
    store: Store, config: RuntimeConfig, tmp_path: Path
) -> None:
    backups = ScheduledBackup(store, config)
    (tmp_path / "backups").write_text("in the way")
    with pytest.raises(StoreError, match="backups"):
        await backups.back_up()
    (tmp_path / "backups").unlink()
    await backups.back_up()
    await backups.back_up()
    assert len(list((tmp_path / "backups").iterdir())) == 1


async def test_one_that_its_process_died_over_is_made_by_another(
    store: Store, config: RuntimeConfig, tmp_path: Path
) -> None:
    (tmp_path / "backups").write_text("in the way")
    with pytest.raises(StoreError, match="backups"):
        # And never comes back to it.
        await ScheduledBackup(store, config, again_s=0.2).back_up()
    (tmp_path / "backups").unlink()

    async def made() -> bool:
        await ScheduledBackup(store, config, again_s=0.2).back_up()
        return (tmp_path / "backups").exists()

    assert not await made(), "it was another one's turn a moment ago"
    await until(made, 10)
    await asyncio.sleep(0.3)
    assert await made() and len(list((tmp_path / "backups").iterdir())) == 1


async def test_an_old_backup_that_cannot_be_removed_is_told(
    store: Store, config: RuntimeConfig, tmp_path: Path
) -> None:
    for day in ("01", "02"):
        (tmp_path / "backups" / f"parley-202501{day}T000000Z.backup").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be removed"):
        await ScheduledBackup(store, config).back_up()
    assert len([path for path in (tmp_path / "backups").iterdir() if path.is_file()]) == 1


class LostAtTheEnd:
    """A database that is lost when the last of it has been read."""

    def __init__(self, source: BackupSource) -> None:
        self.backend = source.backend
        self._source = source

    def read(self, work: Work[Any]) -> Any:
        self._source.read(work)
        raise StoreError("the connection was lost")


async def test_a_backup_that_fails_again_and_again_leaves_no_files(
    store: Store, config: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "actors.running.scheduled_backup.backup_source", lambda config: LostAtTheEnd(backup_source(config))
    )
    backups = ScheduledBackup(store, config)
    for _ in range(3):
        with pytest.raises(StoreError, match="was lost"):
            await backups.back_up()
        assert list((tmp_path / "backups").iterdir()) == []
    monkeypatch.undo()
    await backups.back_up()
    assert len(list((tmp_path / "backups").iterdir())) == 1


class FullStore:
    """A store that gives a turn and takes nothing more, as one whose disk has become full meanwhile."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def turn(self, job: str, every_s: float, again_s: float | None = None) -> bool:
        if not every_s:
            raise StoreFull("the database is full")
        return await self._store.turn(job, every_s, again_s)


async def test_one_that_is_written_is_not_owed_where_the_turn_cannot_be_noted(
    store: Store, config: RuntimeConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    for day in ("01", "02"):
        folder.mkdir(exist_ok=True)
        (folder / f"parley-202501{day}T000000Z.backup").write_text("")
    backups = ScheduledBackup(cast(Store, FullStore(store)), config)
    with pytest.raises(StoreFull):
        await backups.back_up()
    made = sorted(path.name for path in folder.iterdir())
    assert len(made) == 2 and "parley-20250101T000000Z.backup" not in made, "the old ones went"
    await backups.back_up()
    assert sorted(path.name for path in folder.iterdir()) == made


STAMP = st.integers(0, 10**8 - 1).map(lambda day: f"parley-{day:08}T000000Z.backup")


@given(st.sets(STAMP, max_size=12), st.integers(1, 6))
def test_what_is_removed_is_older_than_what_stays(names: set[str], keep: int) -> None:
    with TemporaryDirectory() as text:
        folder = Path(text)
        for name in [*names, "other.backup", "parley.db"]:
            (folder / name).write_text("")
        removed = {path.name for path in remove_old_backups(folder, keep)}
        left = {path.name for path in folder.iterdir()}
        assert left == (names - removed) | {"other.backup", "parley.db"}
        assert len(names - removed) == min(keep, len(names))
        assert not removed or max(removed) < min(names - removed)
