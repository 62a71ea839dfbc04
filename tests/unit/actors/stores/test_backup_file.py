"""A backup's file: whole or not at all, and never taken for something that it is not."""

from __future__ import annotations

import errno
import math
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.stores.backup_file import Manifest, new_backup, open_backup
from registries.contracts.errors import Conflict, StoreError, ValidationError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUE = st.one_of(
    st.none(),
    TEXT,
    st.binary(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
ROWS = st.lists(st.lists(VALUE, min_size=3, max_size=3), max_size=30)


def write(path: Path, tables: dict[str, list[list[Any]]], version: int = 2) -> Manifest:
    with new_backup(path) as writer:
        for name, rows in tables.items():
            writer.add_table(name, ("a", "b", "c"), [rows[:7], [], rows[7:]])
        return writer.finish(version, "sqlite", 1.5)


def read(path: Path) -> dict[str, list[list[Any]]]:
    with open_backup(path) as backup:
        return {
            part.table: [row for page in backup.pages(part.table) for row in page]
            for part in backup.manifest.parts
        }


@given(ROWS, ROWS)
def test_what_is_read_is_what_was_written(one: list[list[Any]], two: list[list[Any]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        manifest = write(path, {"one": one, "two": two})
        found = read(path)
        assert found == {"one": one, "two": two}
        for row, other in zip(found["one"], one, strict=True):
            assert [type(value) for value in row] == [type(value) for value in other]
            assert [math.copysign(1, v) for v in row if isinstance(v, float)] == [
                math.copysign(1, v) for v in other if isinstance(v, float)
            ]
        assert [part.rows for part in manifest.parts] == [len(one), len(two)]
        with open_backup(path) as backup:
            assert backup.manifest == manifest and backup.columns("two") == ["a", "b", "c"]


SAMPLE = {"one": [[number, "text " * number, bytes([number])] for number in range(50)]}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sample") / "x"
    write(path, SAMPLE)
    return path.read_bytes()


@settings(max_examples=300)
@given(st.data())
def test_a_file_cut_off_anywhere_is_refused(sample: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(sample) - 1))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(sample[:length])
        with pytest.raises(ValidationError) as caught:
            read(path)
        assert str(path) in caught.value.message and caught.value.param == "file"


def test_an_entry_that_says_it_is_encrypted_is_refused(sample: bytes, tmp_path: Path) -> None:
    flags = sample.index(b"PK\x01\x02") + 8
    path = tmp_path / "x"
    path.write_bytes(sample[:flags] + bytes([sample[flags] | 1]) + sample[flags + 1 :])
    with pytest.raises(ValidationError, match="damaged"):
        read(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_an_entry_that_says_it_is_compressed_otherwise_is_refused(
    sample: bytes, tmp_path: Path, method: int
) -> None:
    at = sample.index(b"PK\x01\x02") + 10
    path = tmp_path / "x"
    path.write_bytes(sample[:at] + bytes([method]) + sample[at + 1 :])
    with pytest.raises(ValidationError, match="damaged"):
        read(path)


def test_a_name_that_is_no_text_is_refused(sample: bytes, tmp_path: Path) -> None:
    entry = sample.index(b"PK\x01\x02")
    changed = bytearray(sample)
    changed[entry + 9] |= 0x08  # says that its name is UTF-8
    changed[entry + 46] = 0xFF
    path = tmp_path / "x"
    path.write_bytes(changed)
    with pytest.raises(ValidationError, match="damaged"):
        read(path)


@settings(max_examples=500)
@given(st.data())
def test_a_changed_byte_is_refused_or_changes_nothing(sample: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(sample) - 1))
    value = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(sample[:position] + bytes([value]) + sample[position + 1 :])
        try:
            found = read(path)
        except ValidationError:
            return
        assert found == SAMPLE


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"SQLite format 3\x00" + bytes(4096), b"{}"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValidationError, match="no backup"):
        read(tmp_path / "x")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="No such file"):
        read(tmp_path / "nothing")
    with pytest.raises(ValidationError, match="directory"):
        read(tmp_path)


def test_a_newer_format_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.stores.backup_file.FORMAT_VERSION", 9)
    write(tmp_path / "x", SAMPLE)
    monkeypatch.undo()
    with pytest.raises(ValidationError, match="format 9"):
        read(tmp_path / "x")


def test_a_backup_that_fails_leaves_the_last_one(tmp_path: Path) -> None:
    write(tmp_path / "x", SAMPLE)
    with pytest.raises(StoreError, match="away"), new_backup(tmp_path / "x") as writer:
        writer.add_table("one", ("a",), [[[1]]])
        raise StoreError("the database is away")
    assert read(tmp_path / "x") == SAMPLE
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_cannot_be_flushed_under_its_name_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("actors.stores.backup_file._flush_folder", refuse)
    with pytest.raises(StoreError, match="cannot be written"):
        write(tmp_path / "x", SAMPLE)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    write(tmp_path / "x", {"one": []})
    monkeypatch.setattr("actors.stores.backup_file._flush_folder", refuse)
    with pytest.raises(StoreError, match="cannot be written"):
        write(tmp_path / "x", SAMPLE)
    assert read(tmp_path / "x") == SAMPLE, "the older one is gone, this one is whole"


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(StoreError, match="cannot be written"):
        write(tmp_path / "notes" / "x", SAMPLE)


def test_another_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "parley.db").write_text("precious")
    with pytest.raises(Conflict, match="is no backup"):
        write(tmp_path / "parley.db", SAMPLE)
    assert (tmp_path / "parley.db").read_text() == "precious"


def test_a_disk_that_is_full_is_said(tmp_path: Path) -> None:
    # The one file of every Linux that answers ENOSPC to each write.
    (tmp_path / ".x.part").symlink_to("/dev/full")
    with pytest.raises(StoreError) as caught:
        write(tmp_path / "x", {"one": [[1, "y" * 1_000_000, None]]})
    assert caught.value.code == "store_full"
    assert not (tmp_path / "x").exists()
