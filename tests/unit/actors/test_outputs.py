from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.outputs import artifact_path, outputs_root, prepare_artifact, prune_outputs
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import StoreError, ValidationError
from registries.contracts.runs import RunRequest, RunResult

RESULT = RunResult(run_id="r1", flow="challenge", flow_version="v", status="completed", answer="85 ä")
REQUEST = RunRequest(prompt="What?", flow_type="challenge")


def test_the_file_has_request_and_result_and_is_for_the_owner_alone(tmp_path: Path) -> None:
    prepared = prepare_artifact(tmp_path, RESULT, REQUEST)
    path = prepared.path
    assert not path.exists(), "before the run's end is committed"
    prepared.publish()
    assert path == tmp_path / "challenge_flows" / "r1.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    assert body["execution_id"] == "r1" and body["answer"] == "85 ä" and body["artifact"] == str(path)
    assert body["request"]["prompt"] == "What?"
    assert path.stat().st_mode & 0o077 == 0
    assert list(path.parent.iterdir()) == [path]


def test_one_that_lost_its_run_leaves_the_other_ones_file_alone(tmp_path: Path) -> None:
    prepare_artifact(tmp_path, RESULT, REQUEST).publish()
    late = prepare_artifact(tmp_path, RESULT.model_copy(update={"status": "failed"}), REQUEST)
    late.discard()
    late.discard()
    assert [json.loads(f.read_text())["status"] for f in late.path.parent.iterdir()] == ["completed"]


@pytest.mark.parametrize(
    "name", ["../x", "..", "/etc/passwd", "a\0b", "", ".hidden", "a/../../b", "x" * 200, "a b"]
)
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError):
        artifact_path(tmp_path, "challenge", name)
    if "/" not in name:
        with pytest.raises(ValidationError):
            artifact_path(tmp_path, name, "r1")


@given(st.text(max_size=30), st.text(max_size=30))
def test_every_path_is_inside_or_refused(flow: str, execution_id: str) -> None:
    root = Path("/somewhere/outputs")
    try:
        path = artifact_path(root, flow, execution_id)
    except ValidationError:
        return
    assert path.resolve().is_relative_to(root)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "outputs", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "challenge_flows").symlink_to(outside)
    with pytest.raises(ValidationError, match="outside"):
        prepare_artifact(root, RESULT, REQUEST)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "challenge_flows").write_text("a file in the way")
    with pytest.raises(StoreError, match="challenge_flows"):
        prepare_artifact(tmp_path, RESULT, REQUEST)


def test_a_relative_folder_is_in_the_home(tmp_path: Path) -> None:
    assert outputs_root(RuntimeConfig(home=str(tmp_path))) == tmp_path / "outputs"
    assert outputs_root(RuntimeConfig(home="/x", outputs_dir=str(tmp_path))) == tmp_path


def test_pruning_removes_old_results_and_halves_and_nothing_else(tmp_path: Path) -> None:
    now, old = 1_000_000.0, 1_000_000.0 - 90 * 86_400
    assert prune_outputs(tmp_path / "nowhere", 60.0, now) == 0
    kept, gone, half = (prepare_artifact(tmp_path, RESULT, REQUEST) for _ in range(3))
    gone.publish()
    os.utime(gone.path, (old, old))
    os.utime(half.temporary, (old, old))
    os.utime(kept.temporary, (now, now))
    elsewhere, linked = tmp_path / "notes" / "old.json", tmp_path / "linked_flows"
    elsewhere.parent.mkdir()
    elsewhere.write_text("{}")
    os.utime(elsewhere, (old, old))
    linked.symlink_to(elsewhere.parent)
    notes = gone.path.parent / "why this one matters.txt"
    notes.write_text("mine")
    os.utime(notes, (old, old))
    assert prune_outputs(tmp_path, 60.0, now) == 2
    assert not gone.path.exists() and not Path(half.temporary).exists()
    assert Path(kept.temporary).exists() and elsewhere.exists() and notes.exists()
