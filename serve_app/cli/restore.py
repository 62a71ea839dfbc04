"""`parley restore`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registries.contracts.errors import Conflict
from serve_app.cli.backup import BackupPath, summary
from serve_app.cli.command import Command, command
from serve_app.cli.options import AsJson
from serve_app.lifecycle.find_runtime import find_runtime

if TYPE_CHECKING:
    from actors.stores.backup_file import Manifest
    from registries.contracts.config import RuntimeConfig

Replace = Annotated[bool, typer.Option("--replace", help="Give up what the database holds now.")]


def restore(file: BackupPath, replace: Replace = False, as_json: AsJson = False) -> None:
    """Bring a backup back into the database, of whatever kind; the runtime must be stopped."""
    with command(as_json) as cmd:
        _refuse_beside_a_runtime(cmd)
        config = cmd.settings.runtime_config()
        _check_whole(file)
        cmd.home.ensure()
        if replace and (aside := _make_room(config)) is not None:
            cmd.output.note(f"the database was damaged; it is kept as {aside}")
        manifest = asyncio.run(_restore(config, file, replace))
        if as_json:
            cmd.output.json({"file": str(file), **manifest.model_dump(mode="json")})
        else:
            cmd.output.line(f"restored {file}: {summary(manifest)}")
            cmd.output.note("unfinished runs go on at the next start: parley up")


def _refuse_beside_a_runtime(cmd: Command) -> None:
    """A stale one too: some of its processes may still write."""
    condition = find_runtime(cmd.home).condition
    if condition != "none":
        state = "is running" if condition == "running" else "was not stopped cleanly"
        raise Conflict(f"a runtime of {cmd.home.path} {state}; first: parley down")


def _check_whole(backup: Path) -> None:
    """Before anything is made or moved for it: raises ValidationError for one that is missing or damaged."""
    from actors.stores.backup_file import open_backup

    with open_backup(backup):
        pass


def _make_room(config: RuntimeConfig) -> Path | None:
    """Where a damaged SQLite file was put; one that can be opened is emptied by the restore itself.

    Raises StoreError.
    """
    from actors.stores.damaged_file import set_aside_damaged
    from actors.stores.open_database import parse_sqlite_url, store_url

    url = store_url(config)
    if not url.startswith("sqlite:"):
        return None
    return set_aside_damaged(parse_sqlite_url(url).path)


async def _restore(config: RuntimeConfig, file: Path, replace: bool) -> Manifest:
    from actors.stores.open_database import open_database
    from actors.stores.restore import restore_backup

    database = await open_database(config)
    try:
        return await restore_backup(database, file, replace)
    finally:
        await database.close()
