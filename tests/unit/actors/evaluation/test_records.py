"""The results file: what is in it counts as done, and nothing else."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.evaluation.records import ItemRecord, ResultLog
from registries.contracts.errors import StoreError, ValidationError
from registries.contracts.runs import ErrorFact

FAILED = ErrorFact(code="capacity", message="full")


def record(item: str, arm: str = "flow:challenge", error: ErrorFact | None = None) -> ItemRecord:
    return ItemRecord(
        arm=arm, id=item, final_answer="ünïcode\n85", prompt_tokens=3, completion_tokens=4, error=error
    )


def test_a_reopened_file_knows_what_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    with ResultLog(path) as log:
        log.append(record("b"))
        log.append(record("a"))
        log.append(record("c", error=FAILED))
        log.append(record("a", arm="model:nano-m"))
    with ResultLog(path) as log:
        assert log.finished("flow:challenge") == {"a", "b"}
        assert [each.id for each in log.of("flow:challenge")] == ["a", "b", "c"]
        assert log.finished("model:nano-m") == {"a"}
        assert log.of("flow:challenge")[0] == record("a")
        assert record("a").tokens == 7


def test_the_last_record_of_an_item_counts(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultLog(path) as log:
        log.append(record("a", error=FAILED))
        log.append(record("a"))
        assert log.finished("flow:challenge") == {"a"}
    with ResultLog(path) as log:
        assert log.finished("flow:challenge") == {"a"}


@settings(deadline=None)  # every example writes to a disk
@given(st.data())
def test_a_file_torn_anywhere_loses_its_last_line_at_most(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "results.jsonl"
    with ResultLog(path) as log:
        for item in "abc":
            log.append(record(item))
    whole = path.read_bytes()
    kept = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:kept])
    expected = set("abc"[: whole[:kept].count(b"\n")])
    with ResultLog(path) as log:
        assert log.finished("flow:challenge") == expected
        for item in sorted(set("abc") - expected):
            log.append(record(item))
    assert path.read_bytes() == whole


def test_a_last_line_of_noise_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultLog(path) as log:
        log.append(record("a"))
    path.write_bytes(path.read_bytes() + b"\x00\x00\x00\n")
    with ResultLog(path) as log:
        log.append(record("b"))
    with ResultLog(path) as log:
        assert log.finished("flow:challenge") == {"a", "b"}


def test_noise_inside_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultLog(path) as log:
        log.append(record("a"))
    path.write_bytes(b'{"arm": 1}\n' + path.read_bytes())
    with pytest.raises(ValidationError, match=r"results\.jsonl, line 1: not a result"):
        ResultLog(path)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        ResultLog(tmp_path / "file" / "results.jsonl")


def test_a_full_disk_is_a_store_error(tmp_path: Path) -> None:
    log = ResultLog(tmp_path / "results.jsonl")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        with pytest.raises(StoreError, match=r"results\.jsonl: cannot be written"):
            log.append(record("a"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.finished("flow:challenge") == set()
