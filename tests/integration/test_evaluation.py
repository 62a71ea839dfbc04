"""A batch evaluation as a Ray job on the running runtime: submitted, watched, resumed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine_pace import paced
from tests.runtime_cluster import RunningCluster

ROOT = Path(__file__).resolve().parents[2]
JOB_TIMEOUT_S = 150


def submit(cluster: RunningCluster, *arguments: str, working_dir: Path | None = None) -> str:
    """`ray job submit … -- python -m actors.evaluation …` with the operator's token; the job's log."""
    ray = shutil.which("ray", path=str(Path(sys.executable).parent))
    assert ray is not None
    address = f"http://127.0.0.1:{cluster.config.dashboard_port}"
    folder = ["--working-dir", str(working_dir)] if working_dir else []
    done = subprocess.run(
        [
            ray,
            "job",
            "submit",
            "--address",
            address,
            *folder,
            "--",
            "python",
            "-m",
            "actors.evaluation",
            *arguments,
        ],
        env={**cluster.environment, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=paced(JOB_TIMEOUT_S),
    )
    log = done.stdout + done.stderr
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]
    return log


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    rows = [{"id": f"q{n}", "input": "What is 48 + 37?", "target": "85"} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_job_evaluates_and_goes_on_where_it_stopped(
    cluster: RunningCluster, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("--dataset", str(dataset), "--out", str(out), "--flow", "challenge", "--model", "fast")
    log = submit(cluster, *arguments, "--votes", "matched", "--limit", "8", "--progress-every", "0.2")
    assert "succeeded" in log, log[-3000:]
    assert "evaluation: 24/24 items" in log
    summary = json.loads((out / "summary.json").read_text())
    arms = {arm["arm"]: arm for arm in summary["arms"]}
    challenge = arms["flow:challenge"]
    assert (challenge["items"], challenge["errors"]) == (8, 0)
    assert (challenge["first"]["right"], challenge["final"]["right"]) == (0, 8)
    assert challenge["change"]["p"] == pytest.approx(2 / 2**8)
    assert challenge["prompt_tokens"] > 0 and challenge["latency_p50_s"] > 0 and challenge["cost_usd"] > 0
    assert arms["model:fast"]["final"]["right"] == 0
    votes = arms["votes:fast=flow:challenge"]
    assert votes["calls"] >= 2
    assert votes["prompt_tokens"] + votes["completion_tokens"] >= challenge["prompt_tokens"]
    page = (out / "summary.md").read_text()
    assert "| flow:challenge | 8 | 0 | 100.0 % [67.6, 100.0] | 0.0 % [0.0, 32.4] |" in page

    results = out / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-7])
    log = submit(cluster, *arguments)
    assert "succeeded" in log, log[-3000:]
    assert "from an earlier run" in log
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert len([line for line in lines if line["arm"] == "flow:challenge"]) == 12
    assert len({line["run_id"] for line in lines if line["run_id"]}) == 12


def test_a_working_dir_brings_its_data_and_the_results_survive_it(
    cluster: RunningCluster, dataset: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(dataset, project / "own.jsonl")
    log = submit(
        cluster,
        *("--dataset", "own.jsonl", "--out", "mine", "--flow", "linear", "--limit", "2"),
        working_dir=project,
    )
    assert "succeeded" in log, log[-3000:]
    assert (cluster.home / "evaluations" / "mine" / "summary.json").exists()


def test_wrong_input_is_one_clear_message(cluster: RunningCluster, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "a"}\n{broken\n')
    log = submit(cluster, "--dataset", str(bad), "--out", str(tmp_path / "out"), "--flow", "challenge")
    assert "line 1, input: is missing" in log
    assert "line 2: not JSON" in log
    log = submit(cluster, "--dataset", str(bad), "--out", str(tmp_path / "out"), "--flow", "chalenge")
    assert "Did you mean 'challenge'?" in log
