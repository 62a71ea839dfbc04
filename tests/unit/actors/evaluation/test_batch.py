"""Whole evaluations against a runtime that is made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.evaluation.batch import evaluate, mean_tokens, output_folder, prepare
from actors.evaluation.command_line import read_options
from actors.evaluation.evaluation import FAILURES_IN_A_ROW
from actors.evaluation.records import ResultLog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ProviderError, ValidationError
from tests.unit.actors.evaluation.fake_runtime import FakeRuntime


@pytest.fixture
def here(tmp_path: Path) -> Path:
    rows = [
        {"id": f"q{n}", "input": f"What is {n} + 7?", "target": str(n + 7), "metadata": {"category": "add"}}
        for n in range(40)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


async def go(runtime: FakeRuntime, here: Path, *extra: str) -> tuple[int, list[str]]:
    said: list[str] = []
    options = read_options(["--dataset", "data.jsonl", "--out", "out", "--progress-every", "0.01", *extra])
    prepared = prepare(options, RuntimeConfig(home="/nowhere"), runtime.catalog, here)
    return await evaluate(prepared, runtime, said.append), said


async def test_all_arms_and_their_tables(here: Path) -> None:
    runtime = FakeRuntime()
    failed, said = await go(
        runtime,
        here,
        "--flow",
        "challenge,plain",
        "--model",
        "adder",
        "--votes",
        "3,matched",
        "--concurrency",
        "4",
    )
    assert failed == 0
    assert 1 < runtime.most_running["run"] <= 4
    assert runtime.most_running["call"] <= 4
    body = json.loads((here / "out" / "summary.json").read_text())
    arms = {arm["arm"]: arm for arm in body["arms"]}
    assert list(arms) == [
        "flow:challenge",
        "flow:plain",
        "model:adder",
        "votes:adder@3",
        "votes:adder=flow:challenge",
        "votes:adder=flow:plain",
    ]
    challenge = arms["flow:challenge"]
    assert (challenge["final"]["right"], challenge["first"]["right"]) == (40, 20)
    assert (challenge["change"]["gained"], challenge["change"]["lost"]) == (20, 0)
    assert challenge["change"]["p"] == pytest.approx(2 / 2**20)
    assert arms["votes:adder=flow:challenge"]["calls"] == 3  # 30 tokens of the flow, 10 a sample
    assert body["facts"]["votes:adder=flow:challenge"] == "3 samples"
    page = (here / "out" / "summary.md").read_text()
    assert "| flow:challenge | 40 | 0 | 100.0 % [91.2, 100.0] | 50.0 % [35.2, 64.8] |" in page
    assert "| add |" in page.replace("| arm | add |", "| add |")
    assert any("240/240 items" in line for line in said)


async def test_a_rerun_does_only_what_is_missing(here: Path) -> None:
    await go(FakeRuntime(), here, "--flow", "challenge", "--limit", "10")
    results = here / "out" / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-5])
    runtime = FakeRuntime()
    failed, said = await go(runtime, here, "--flow", "challenge", "--model", "adder")
    assert failed == 0
    assert len(runtime.orders) == 31
    assert any("(9 from an earlier run)" in line for line in said)
    assert len(results.read_text().splitlines()) == 80


async def test_failed_items_are_recorded_and_done_again(here: Path) -> None:
    down = {"What is 3 + 7?": ProviderError("down", fault="timeout")}
    failed, _ = await go(FakeRuntime(faults=down), here, "--flow", "challenge")
    assert failed == 1
    body = json.loads((here / "out" / "summary.json").read_text())
    assert (body["arms"][0]["errors"], body["arms"][0]["final"]["right"]) == (1, 39)
    with ResultLog(here / "out" / "results.jsonl") as log:
        error = next(record.error for record in log.of("flow:challenge") if record.error)
    assert (error.code, error.fault, error.retryable) == ("provider_error", "timeout", True)
    again = FakeRuntime()
    assert (await go(again, here, "--flow", "challenge"))[0] == 0
    assert len(again.orders) == 1
    body = json.loads((here / "out" / "summary.json").read_text())
    assert (body["arms"][0]["errors"], body["arms"][0]["final"]["right"]) == (0, 40)


async def test_a_dead_model_ends_the_arm_and_not_the_data_set(here: Path) -> None:
    down = {f"What is {n} + 7?": ProviderError("no such host") for n in range(40)}
    with pytest.raises(ProviderError, match=r"model:adder was given up: 25 items in a row .* no such host"):
        await go(FakeRuntime(faults=down), here, "--model", "adder", "--concurrency", "1")
    body = json.loads((here / "out" / "summary.json").read_text())
    assert body["arms"][0]["errors"] == FAILURES_IN_A_ROW


async def test_matching_keeps_its_numbers_on_a_rerun(here: Path) -> None:
    arguments = ("--flow", "challenge", "--model", "adder", "--votes", "matched", "--limit", "4")
    await go(FakeRuntime(), here, *arguments)
    plan = here / "out" / "plan.json"
    plan.write_text(
        plan.read_text().replace('"votes:adder=flow:challenge": 3', '"votes:adder=flow:challenge": 2')
    )
    (here / "out" / "results.jsonl").unlink()
    await go(FakeRuntime(), here, *arguments)
    arms = json.loads((here / "out" / "summary.json").read_text())["arms"]
    assert arms[-1]["calls"] == 2


async def test_another_evaluation_is_kept_out(here: Path) -> None:
    await go(FakeRuntime(), here, "--flow", "challenge", "--limit", "2")
    with pytest.raises(ValidationError, match="seed was 0 and is 1"):
        await go(FakeRuntime(), here, "--flow", "challenge", "--limit", "2", "--seed", "1")


async def test_equal_seeds_give_equal_results(here: Path) -> None:
    pages = []
    for out in ("one", "two"):
        await go(FakeRuntime(), here, "--out", out, "--model", "adder", "--votes", "3")
        body = json.loads((here / out / "summary.json").read_text())
        for arm in body["arms"]:
            del arm["latency_p50_s"], arm["latency_p95_s"]
        pages.append((body["arms"], body["comparisons"]))
    assert pages[0] == pages[1]


async def test_unknown_names_are_all_named(here: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        await go(FakeRuntime(), here, "--flow", "chalenge", "--model", "ader")
    assert "Did you mean 'challenge'?" in caught.value.message
    assert "Did you mean 'adder'?" in caught.value.message


def test_relative_results_of_a_job_survive_it() -> None:
    home = Path("/home/p/.parley")
    copy = Path("/tmp/ray/session/runtime_resources/working_dir_files/_ray_pkg_1")
    assert output_folder(Path("out"), Path("/project"), home) == Path("/project/out")
    assert output_folder(Path("out"), copy, home) == home / "evaluations" / "out"
    assert output_folder(Path("/data/out"), copy, home) == Path("/data/out")


def test_tokens_of_nothing_cannot_be_matched(tmp_path: Path) -> None:
    with ResultLog(tmp_path / "r.jsonl") as log, pytest.raises(ProviderError, match="no answered item"):
        mean_tokens("flow:challenge", log)
