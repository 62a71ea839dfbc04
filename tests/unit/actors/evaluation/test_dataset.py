"""Reading data sets: every bad line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.evaluation.dataset import (
    MAX_PROBLEMS_SHOWN,
    Sample,
    digest_of_samples,
    find_dataset,
    load_dataset,
)
from registries.contracts.errors import ValidationError


def written(tmp_path: Path, *lines: str | bytes) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def test_reads_samples_in_order_and_cuts(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"id": 7, "input": "What is 1 + 1?", "target": 2, "metadata": {"category": "add"}}',
        "",
        '{"id": "b", "input": "Who?", "target": ["Ann", "Anne"]}',
        '{"id": "c", "input": "Why?"}',
    )
    samples = load_dataset(path)
    assert [sample.id for sample in samples] == ["7", "b", "c"]
    assert [sample.targets for sample in samples] == [("2",), ("Ann", "Anne"), ()]
    assert [sample.category for sample in samples] == ["add", None, None]
    assert [sample.id for sample in load_dataset(path, limit=2)] == ["7", "b"]


def test_names_every_bad_line_with_its_key(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"id": "a", "input": "fine"}',
        "{not json",
        "[1, 2]",
        '{"id": "b"}',
        '{"id": "c", "input": "   "}',
        '{"id": "d", "input": "x", "answer": "y"}',
        b'{"id": "\xff", "input": "x"}',
        '{"id": "a", "input": "again"}',
        '{"id": true, "input": 3}',
    )
    with pytest.raises(ValidationError) as caught:
        load_dataset(path)
    message = caught.value.message
    assert caught.value.param == "dataset"
    for expected in (
        "line 2: not JSON",
        "line 3: a JSON object is needed, not list",
        "line 4, input: is missing",
        "line 5, input: Value error, must not be empty",
        "line 6, answer: unknown key; known: id, input, target, metadata",
        "line 7: not UTF-8 (byte 8)",
        "line 8, id: 'a' is already on line 1",
        "line 9, id:",
        "line 9, input:",
    ):
        assert expected in message
    assert "line 1" not in message.replace("on line 1", "")


def test_a_hopeless_file_does_not_flood(tmp_path: Path) -> None:
    path = written(tmp_path, *["oops"] * (MAX_PROBLEMS_SHOWN + 10))
    with pytest.raises(ValidationError, match="and 10 more"):
        load_dataset(path)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_files_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ValidationError, match="holds no samples"):
        load_dataset(written(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"nowhere\.jsonl: cannot be read: No such file"):
        load_dataset(tmp_path / "nowhere.jsonl")


def test_the_package_carries_data_sets_by_name(tmp_path: Path) -> None:
    carried = find_dataset(Path("arithmetic_heldout"), tmp_path)
    assert len(load_dataset(carried)) == 500
    own = written(tmp_path, '{"id": "a", "input": "x"}')
    assert find_dataset(Path(own.name), tmp_path) == own
    with pytest.raises(ValidationError, match=r"there is no file .*nothing, and .*: arithmetic_heldout"):
        find_dataset(Path("nothing"), tmp_path)


def test_the_digest_sees_question_and_target_only() -> None:
    one = Sample(id="a", input="x", target="1")
    assert digest_of_samples([one]) == digest_of_samples([one.model_copy(update={"metadata": {"k": 1}})])
    assert digest_of_samples([one]) != digest_of_samples([Sample(id="a", input="x", target="2")])


@settings(deadline=None)  # every example writes to a disk
@given(st.lists(st.text(), max_size=8), st.binary(max_size=80))
def test_any_file_is_read_or_refused_with_words(
    tmp_path_factory: pytest.TempPathFactory, inputs: list[str], noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "data.jsonl"
    rows = [json.dumps({"id": i, "input": text}).encode() for i, text in enumerate(inputs)]
    path.write_bytes(b"\n".join([*rows, noise]))
    try:
        samples = load_dataset(path)
    except ValidationError as error:
        assert str(path) in error.message
    else:
        assert [sample.input for sample in samples][: len(inputs)] == inputs
