"""`parley backup`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from registries.contracts.errors import ValidationError
from serve_app.cli.command import command
from serve_app.cli.options import AsJson

if TYPE_CHECKING:
    from actors.stores.backup_file import Manifest
    from registries.contracts.config import RuntimeConfig

BackupPath = Annotated[Path, typer.Argument(metavar="FILE", help="The backup's file.", dir_okay=False)]


def backup(file: BackupPath, as_json: AsJson = False) -> None:
    """Write the whole database into one file; the runtime may be running."""
    with command(as_json) as cmd:
        _check_name(file)
        manifest = _back_up(cmd.settings.runtime_config(), file)
        size_bytes = file.stat().st_size
        if as_json:
            cmd.output.json({"file": str(file), "size_bytes": size_bytes, **manifest.model_dump(mode="json")})
        else:
            cmd.output.line(f"wrote {file}: {summary(manifest)}, {size_bytes / 1e6:.1f} MB")


def _check_name(file: Path) -> None:
    """Raises ValidationError for what cannot even be looked for, such as a name that is too long."""
    try:
        file.exists()
    except OSError as error:
        raise ValidationError(
            f"the backup {file} cannot be written: {error.strerror}", param="file"
        ) from None


def summary(manifest: Manifest) -> str:
    """The largest tables in words."""
    rows = {part.table: part.rows for part in manifest.parts}
    return ", ".join(f"{rows.get(table, 0)} {table}" for table in ("runs", "events", "checkpoints"))


def _back_up(config: RuntimeConfig, file: Path) -> Manifest:
    """Not by open_database, which would make what is missing, and migrate below a runtime that is older."""
    from actors.stores.backup import write_backup
    from actors.stores.backup_source import backup_source

    return write_backup(backup_source(config), file)
