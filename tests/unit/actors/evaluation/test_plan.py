"""A folder belongs to one evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.evaluation.plan import Plan, read_plan, write_atomically
from registries.contracts.errors import StoreError, ValidationError

PLAN = Plan(
    seed=1,
    max_tokens=None,
    vote_temperature=0.7,
    flows={"challenge": "v1"},
    samples={"a": "1", "b": "2"},
    votes={"votes:m=flow:challenge": 4},
)


def changed(**fields: object) -> Plan:
    return PLAN.model_copy(update=fields)


def test_more_flows_and_samples_join() -> None:
    joined = PLAN.joined(changed(flows={"linear": "v9"}, samples={"c": "3"}, votes={}))
    assert joined.flows == {"challenge": "v1", "linear": "v9"}
    assert joined.samples == {"a": "1", "b": "2", "c": "3"}
    assert joined.votes == PLAN.votes


def test_everything_that_differs_is_named() -> None:
    other = changed(seed=2, roles={"creator": "x"}, flows={"challenge": "v2"}, samples={"a": "9", "b": "2"})
    with pytest.raises(ValidationError) as caught:
        PLAN.joined(other)
    for words in (
        "seed was 1 and is 2",
        "roles was",
        "flow challenge was version v1 and is v2",
        "1 id(s): a",
    ):
        assert words in caught.value.message
    assert caught.value.param == "out"


def test_a_written_plan_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "plan.json"
    assert read_plan(path) is None
    write_atomically(path, PLAN.model_dump_json())
    assert read_plan(path) == PLAN
    assert [each.name for each in path.parent.iterdir()] == ["plan.json"]


def test_another_file_is_no_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ValidationError, match="not the plan of an evaluation"):
        read_plan(tmp_path / "plan.json")
    with pytest.raises(StoreError, match="cannot be read"):
        read_plan(tmp_path)
    with pytest.raises(StoreError, match="cannot be written"):
        write_atomically(tmp_path / "plan.json" / "x", "")
