"""`parley backup` and `parley restore`, as a user types them."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

from actors.stores.open_store import open_store
from registries.contracts.config import RuntimeConfig
from tests.conformance.stores.sample_runs import new_run
from tests.postgres_server import with_schema
from tests.unit.serve_app.cli.shell import Shell


def store_runs(home: Path, *run_ids: str) -> None:
    async def accept() -> None:
        store = await open_store(RuntimeConfig(home=str(home)))
        for run_id in run_ids:
            await store.accept(new_run(run_id))
        await store.close()

    asyncio.run(accept())


def test_there_and_back(shell: Shell, tmp_path: Path) -> None:
    store_runs(shell.home.path, "r1", "r2")
    file = tmp_path / "x.backup"
    result = shell("backup", str(file))
    assert result.exit_code == 0, result.stderr
    assert f"wrote {file}: 2 runs, 2 events, 0 checkpoints" in result.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    other = Shell(tmp_path / "other home", 9)
    result = other("restore", str(file))
    assert result.exit_code == 0, result.stderr
    assert "2 runs" in result.stdout and "parley up" in result.stderr
    assert stat.S_IMODE(other.home.path.stat().st_mode) == 0o700
    again = json.loads(other("backup", str(tmp_path / "y.backup"), "--json").stdout)
    assert {part["table"]: part["rows"] for part in again["parts"]}["runs"] == 2


def test_a_filled_database_is_given_up_only_when_asked(shell: Shell, tmp_path: Path) -> None:
    store_runs(shell.home.path, "r1")
    file = tmp_path / "x.backup"
    assert shell("backup", str(file)).exit_code == 0
    store_runs(shell.home.path, "r2")
    refused = shell("restore", str(file))
    assert refused.exit_code == 4 and "--replace" in refused.stderr and refused.stdout == ""
    assert "1 runs" in shell("restore", str(file), "--replace").stdout


def test_a_damaged_database_makes_room_for_a_backup_that_is_whole(shell: Shell, tmp_path: Path) -> None:
    store_runs(shell.home.path, "r1", "r2")
    file, database = tmp_path / "x.backup", shell.home.path / "parley.db"
    assert shell("backup", str(file)).exit_code == 0
    database.write_bytes(b"no database any more" * 500)
    refused = shell("restore", str(file))
    assert refused.exit_code == 1 and "not a database" in refused.stderr
    (tmp_path / "torn.backup").write_bytes(file.read_bytes()[:-100])
    assert shell("restore", str(tmp_path / "torn.backup"), "--replace").exit_code == 2
    assert database.read_bytes().startswith(b"no database"), "not for a damaged backup"
    done = shell("restore", str(file), "--replace")
    assert done.exit_code == 0 and "2 runs" in done.stdout, done.stderr
    (aside,) = shell.home.path.glob("parley.db.damaged-*")
    assert str(aside) in done.stderr and aside.read_bytes().startswith(b"no database")


def test_beside_a_runtime_a_backup_is_made_and_nothing_restored(started: Shell, tmp_path: Path) -> None:
    store_runs(started.home.path, "r1")
    file = tmp_path / "x.backup"
    assert started("backup", str(file)).exit_code == 0
    refused = started("restore", str(file), "--replace")
    assert refused.exit_code == 4
    assert "is running" in refused.stderr and "parley down" in refused.stderr


def test_what_cannot_be_used_is_one_error(shell: Shell, tmp_path: Path) -> None:
    foreign = tmp_path / "notes.txt"
    foreign.write_text("nothing of ours")
    for file in (foreign, tmp_path / "missing"):
        result = shell("restore", str(file))
        assert result.exit_code == 2 and str(file) in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    store_runs(shell.home.path, "r1")
    result = shell("backup", str(foreign))
    assert result.exit_code == 4 and "is no backup" in result.stderr
    assert foreign.read_text() == "nothing of ours"
    result = shell("backup", str(tmp_path / "no such folder" / "x.backup"))
    assert result.exit_code == 1 and "cannot be written" in result.stderr


def test_a_restore_of_nothing_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "torn").write_text("no backup")
    for file in ("missing", "torn"):
        for words in ((), ("--replace",)):
            other = Shell(tmp_path / "other home", 9)
            assert other("restore", str(tmp_path / file), *words).exit_code == 2
            url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
            assert other("restore", str(tmp_path / file), *words, PARLEY_STORE_URL=url).exit_code == 2
            assert [path.name for path in tmp_path.iterdir()] == ["torn"]


def test_a_name_that_no_file_can_have_is_one_error(shell: Shell) -> None:
    store_runs(shell.home.path, "r1")
    for words in (("backup", "a" * 300), ("restore", "a" * 300)):
        result = shell(*words)
        assert result.exit_code == 2 and "File name too long" in result.stderr
    assert not (shell.home.path / "logs" / "crash.log").exists()


def test_a_home_without_a_database_has_nothing_to_back_up(shell: Shell, tmp_path: Path) -> None:
    result = shell("backup", str(tmp_path / "x.backup"))
    assert result.exit_code == 2 and "check PARLEY_HOME" in result.stderr
    assert not (tmp_path / "x.backup").exists()
    assert not (shell.home.path / "parley.db").exists()


def test_a_backup_with_a_misspelt_schema_is_one_error_that_names_it(
    shell: Shell, postgres_dsn: str, tmp_path: Path
) -> None:
    file, url = tmp_path / "x.backup", with_schema(postgres_dsn, "test_misspelt")
    for _ in range(2):
        result = shell("backup", str(file), PARLEY_STORE_URL=url)
        assert result.exit_code == 2 and "no schema test_misspelt" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1 and not file.exists()
