"""The file of a backup: a zip of one part a table, and a manifest that vouches for them.

``tables/NAME.jsonl``: ``{"columns": […]}``, then one JSON array a row; bytes are ``{"b64": "…"}``.
``manifest.json``: see Manifest. Nothing in it belongs to one kind of database.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import orjson
import pydantic

from registries.contracts.errors import Conflict, StoreError, StoreFull, ValidationError
from registries.contracts.frozen import Frozen

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_PAGE_ROWS, _PAGE_BYTES = 500, 2_000_000
_ENCRYPTED = 0x1
_COMPRESSION = 3
"""Twice as fast as zlib's default, and a tenth larger."""


class Part(Frozen):
    """One table: ``sha256`` is over ``size_bytes`` uncompressed bytes, ``rows`` without the header."""

    table: str
    rows: int
    size_bytes: int
    sha256: str


class Manifest(Frozen):
    """What a backup holds. ``created_at`` is seconds since the epoch; ``backend`` wrote it, any reads it."""

    format: Literal["parley-backup"] = "parley-backup"
    format_version: int
    schema_version: int
    backend: str
    created_at: float
    parts: tuple[Part, ...]


class BackupWriter:
    """A backup being written, by ``new_backup``."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        self._path = path
        self._parts: list[Part] = []

    def add_table(self, name: str, columns: Sequence[str], pages: Iterable[Sequence[Sequence[Any]]]) -> int:
        """Write all rows; the uncompressed size in bytes. One page at a time is in memory."""
        digest, size, count = hashlib.sha256(), 0, 0
        with (
            _our_faults(self._path),
            self._archive.open(f"tables/{name}.jsonl", "w", force_zip64=True) as part,
        ):
            lines = orjson.dumps({"columns": list(columns)}, option=orjson.OPT_APPEND_NEWLINE)
            for page in pages:
                size += _put(part, digest, lines)
                lines = b"".join(_line(row) for row in page)
                count += len(page)
            size += _put(part, digest, lines)
        self._parts.append(Part(table=name, rows=count, size_bytes=size, sha256=digest.hexdigest()))
        return size

    def finish(self, schema_version: int, backend: str, created_at: float) -> Manifest:
        """Write the manifest: without it the file is none."""
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            schema_version=schema_version,
            backend=backend,
            created_at=created_at,
            parts=tuple(self._parts),
        )
        with _our_faults(self._path):
            self._archive.writestr(_MANIFEST, manifest.model_dump_json(indent=1))
        return manifest


class BackupReader:
    """A backup whose every part has been checked, by ``open_backup``."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self._archive = archive
        self.manifest = manifest

    def columns(self, table: str) -> list[str]:
        """The columns of its rows."""
        with self._archive.open(f"tables/{table}.jsonl") as part:
            return [str(name) for name in orjson.loads(part.readline())["columns"]]

    def pages(self, table: str) -> Iterator[list[list[Any]]]:
        """Its rows, some hundred at a time, fewer where they are large."""
        page: list[list[Any]] = []
        size = 0
        with self._archive.open(f"tables/{table}.jsonl") as part:
            part.readline()
            for line in part:
                page.append([_value(value) for value in orjson.loads(line)])
                size += len(line)
                if len(page) == _PAGE_ROWS or size > _PAGE_BYTES:
                    yield page
                    page, size = [], 0
        if page:
            yield page


@contextmanager
def new_backup(path: Path) -> Iterator[BackupWriter]:
    """Write a backup that is there whole or not at all (mode 0600: it holds what users asked).

    Raises Conflict for an existing file that is no backup, StoreFull when the disk is full, StoreError when
    the folder cannot be written to.
    """
    if path.exists() and not _is_backup(path):
        raise Conflict(f"{path} exists and is no backup; it stays as it is", param="file")
    part = path.with_name(f".{path.name}.part")
    with _our_faults(path):
        try:
            with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as archive:
                    yield BackupWriter(archive, path)
                file.flush()
                os.fsync(file.fileno())
            _put_in_place(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def open_backup(path: Path) -> Iterator[BackupReader]:
    """A backup that is whole, by its manifest and digests; reads it once from end to end.

    Raises ValidationError (param file) for a file that is missing, damaged, foreign or of a newer format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if not all(_is_plain(entry) for entry in archive.infolist()):
                raise zipfile.BadZipFile
            manifest = _read_manifest(archive, path)
            for part in manifest.parts:
                _check(archive, part, path)
            yield BackupReader(archive, manifest)
    except OSError as error:
        raise ValidationError(f"{path} cannot be read: {error.strerror or error}", param="file") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError):
        raise ValidationError(
            f"{path} is no backup, or damaged: it ends early or was changed", param="file"
        ) from None


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    """Deflated, or stored by who packed it again, and not encrypted. A changed byte may say otherwise, which
    zipfile would tell by a RuntimeError (no password), or by whatever the other method's module raises."""
    known = entry.compress_type in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)
    return known and not entry.flag_bits & _ENCRYPTED


def _read_manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    try:
        text = archive.read(_MANIFEST)
        version = orjson.loads(text).get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise ValidationError(
                f"{path} was written by a newer program (format {version}, this one reads {FORMAT_VERSION})",
                param="file",
            )
        return Manifest.model_validate_json(text)
    except (KeyError, orjson.JSONDecodeError, AttributeError, pydantic.ValidationError):
        raise ValidationError(f"{path} is no backup of Parley", param="file") from None


def _check(archive: zipfile.ZipFile, part: Part, path: Path) -> None:
    digest, size, lines = hashlib.sha256(), 0, 0
    try:
        with archive.open(f"tables/{part.table}.jsonl") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
                lines += chunk.count(b"\n")
    except KeyError:
        raise ValidationError(f"{path} is damaged: it has no table {part.table}", param="file") from None
    if (digest.hexdigest(), size, lines) != (part.sha256, part.size_bytes, part.rows + 1):
        raise ValidationError(
            f"{path} is damaged: table {part.table} is not what its manifest says", param="file"
        )


def _is_backup(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return _MANIFEST in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def _put(part: IO[bytes], digest: Any, lines: bytes) -> int:
    digest.update(lines)
    part.write(lines)
    return len(lines)


def _line(row: Sequence[Any]) -> bytes:
    return orjson.dumps(list(row), default=_text_of_bytes, option=orjson.OPT_APPEND_NEWLINE)


def _text_of_bytes(value: Any) -> dict[str, str]:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"b64": base64.b64encode(value).decode()}
    raise TypeError(f"a backup has no form for {type(value).__name__}")


def _value(value: Any) -> Any:
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


@contextmanager
def _our_faults(path: Path) -> Iterator[None]:
    """The file system's errors as ours, there and then: further out they would pass for the database's."""
    try:
        yield
    except OSError as error:
        kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
        raise kind(f"the backup {path} cannot be written: {error.strerror}", param="file") from error


def _put_in_place(part: Path, path: Path) -> None:
    """Under its name for good, or not at all."""
    is_first = not path.exists()
    os.replace(part, path)
    try:
        _flush_folder(path.parent)
    except OSError:
        # What is told as failed must not pile up. One that took an older one's place is all that there is.
        if is_first:
            path.unlink()
        raise


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
