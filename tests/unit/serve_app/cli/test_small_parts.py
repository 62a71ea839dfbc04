"""Questions, tables, results, exit codes, the curl."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registries.contracts import errors
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import (
    ALL_ERRORS,
    Conflict,
    KeyReused,
    LeaseLost,
    NotFound,
    Unauthorized,
    ValidationError,
)
from registries.contracts.generation import (
    MAX_PROMPT_CHARS,
    Attempt,
    GenerationRequest,
    GenerationResult,
    Usage,
)
from registries.contracts.runs import Improvement, RunRequest, RunStatus
from registries.loader import load_catalog
from serve_app.cli.demo import curl_for, key_expression, models_in_use, only_embedded_models
from serve_app.cli.direct import attachment_from, replacement_note
from serve_app.cli.exit_codes import ExitCode, exit_code_of, exit_code_of_run
from serve_app.cli.main import app
from serve_app.cli.prompt_input import question_from, text_or_file
from serve_app.cli.run import models_by_role
from serve_app.cli.runs import runs
from serve_app.cli.runs_fork import edits_from
from serve_app.cli.runs_list import ago
from serve_app.cli.show_result import cost, generation_facts, improvement, tokens
from serve_app.cli.table import table_lines
from serve_app.client.answers import tolerant
from serve_app.client.api_errors import NotRunning
from serve_app.client.catalogue import FlowDetail, ModelList
from serve_app.lifecycle.compose_config import completed_config
from serve_app.lifecycle.runtime_home import RuntimeHome, write_private
from serve_app.settings import load_settings
from tests.unit.serve_app.sample_answers import GENERATION


def test_a_question_comes_from_one_place() -> None:
    nothing = io.StringIO("")
    assert question_from("a", None, nothing) == "a"
    assert question_from(None, "b", nothing) == "b"
    assert question_from("-", None, io.StringIO("c\n")) == "c\n"
    assert question_from(None, None, nothing, fallback="d") == "d"


@pytest.mark.parametrize(
    ("argument", "option"), [(None, None), ("", None), (" \n", None), ("a", "b"), ("\ud800", None)]
)
def test_no_question_two_questions_and_no_text_are_refused(argument: str | None, option: str | None) -> None:
    with pytest.raises(ValidationError) as caught:
        question_from(argument, option, io.StringIO(""))
    assert caught.value.param == "prompt"


def test_standard_input_must_be_text() -> None:
    with pytest.raises(ValidationError, match="UTF-8"):
        question_from("-", None, io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))


def test_a_huge_standard_input_is_not_cut_in_silence() -> None:
    assert len(question_from("-", None, io.StringIO("x" * (MAX_PROMPT_CHARS + 10)))) == MAX_PROMPT_CHARS + 1


def test_models_by_role() -> None:
    assert models_by_role(["creator=nano-m", " refiner = a/b=c "]) == {
        "creator": "nano-m",
        "refiner": "a/b=c",
    }
    for wrong in (["creator"], ["=x"], ["x="], ["a=b", "a=c"]):
        with pytest.raises(ValidationError):
            models_by_role(wrong)


def test_attachments(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_bytes(b"png")
    assert attachment_from(str(tmp_path / "i.png")).data == "cG5n"
    assert attachment_from("https://x/i.png").url == "https://x/i.png"
    with pytest.raises(ValidationError, match="nowhere"):
        attachment_from(str(tmp_path / "nowhere.png"))


def test_a_table_has_columns_and_no_trailing_spaces() -> None:
    lines = table_lines(("A", "LONG"), [("x", "1"), ("yyy", "a\nb"), ("\x1b[31mz", "")])
    assert lines == ["A    LONG", "x    1", "yyy  a b", "z"]


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9))))
def test_a_table_has_one_line_for_each_row(rows: list[tuple[str, str]]) -> None:
    lines = table_lines(("A", "B"), rows)
    assert len(lines) == len(rows) + 1 and all("\n" not in line for line in lines)


def test_every_error_of_the_tree_has_an_exit_code() -> None:
    special = {ValidationError: 2, KeyReused: 2, NotFound: 2, Unauthorized: 5, Conflict: 4, LeaseLost: 4}
    for kind in ALL_ERRORS:
        assert exit_code_of(kind("x")) == special.get(kind, 1), kind
    assert exit_code_of(Conflict("told by the API", context={"status": 409})) == ExitCode.USAGE
    assert exit_code_of(NotRunning("x")) == ExitCode.NOT_RUNNING
    assert errors.ParleyError not in special


def test_a_run_that_was_waited_for_has_an_exit_code() -> None:
    codes = {status: exit_code_of_run(status).value for status in get_args(RunStatus)}
    assert codes == {"completed": 0, "waiting": 6, "cancelled": 7, "failed": 1, "queued": 1, "running": 1}
    assert exit_code_of_run("of_the_future") == ExitCode.FAILED


def test_edits_of_a_fork(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("from a file")
    given = ["outputs.creator=85", f"outputs.a.b=@{tmp_path}/t.txt", "scores.judge=0.5", "memory.x=a=b"]
    assert edits_from(given) == {
        "outputs": {"creator": "85", "a.b": "from a file"},
        "scores": {"judge": 0.5},
        "memory": {"x": "a=b"},
    }
    for wrong in (
        "outputs",
        "outputs=1",
        "outputs.=1",
        ".creator=1",
        "outputs.creator",
        "outputs.c=@/no/file",
    ):
        with pytest.raises(ValidationError):
            edits_from([wrong])
    (tmp_path / "t.bin").write_bytes(b"\xff")
    with pytest.raises(ValidationError, match="UTF-8"):
        text_or_file(f"@{tmp_path}/t.bin", "text")


@pytest.mark.parametrize(
    ("past_s", "shown"),
    [(0, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7200, "2 h ago"), (1e6, "12 d ago")],
)
def test_the_past_is_short(past_s: float, shown: str) -> None:
    assert ago(1e9, 1e9 - past_s) == shown
    assert ago(1e9, None) == "" and ago(0, 5) == "0 s ago"


def test_numbers_are_readable() -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=2, cost_micro_usd=1500, estimated=True)
    assert tokens(usage) == "1 in, 2 out (estimated)" and cost(usage) == "$0.001500"
    assert improvement(Improvement(reason="no judge")) == "not measured: no judge"
    scored = Improvement(first_score=0.0, final_score=1.0, delta=1.0, method="checker")
    assert improvement(scored) == "+1.00 (first 0.00, final 1.00, by checker)"
    facts = generation_facts(GenerationResult.model_validate(GENERATION))
    assert facts == "nano-m (local), 7 in, 6 out, 0.12 s, $0.000012, ended by stop"


@given(st.text(min_size=1).filter(str.strip))
def test_the_curl_survives_a_shell_whatever_the_question(prompt: str) -> None:
    line = curl_for("http://127.0.0.1:8001", "$(cat k)", RunRequest(prompt=prompt, flow_type="challenge"))
    words = shlex.split(line)
    assert words[:3] == ["curl", "-s", "http://127.0.0.1:8001/api/orchestrate"]
    assert json.loads(words[-1]) == {"flow_type": "challenge", "prompt": prompt}
    assert "\n" not in line


def test_the_curl_reads_the_key_from_where_the_shell_can(tmp_path: Path) -> None:
    home = RuntimeHome(tmp_path)
    home.ensure()
    assert key_expression(home, "own", frozenset({"PARLEY_API_KEY"})) == "$PARLEY_API_KEY"
    assert key_expression(home, None, frozenset()) == f"$(cat {tmp_path}/admin.key)"
    write_private(home.effective_key_file, "own")
    assert key_expression(home, "own", frozenset()) == f"$(cat {tmp_path}/run/api.key)"


def test_the_page_on_the_command_line_names_every_command_and_exit_code() -> None:
    page = (Path(__file__).parents[4] / "docs" / "cli.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"| {code.value} |" in page
    for command in app.registered_commands:
        assert f"`parley {command.name}" in page
    for command in runs.registered_commands:
        assert f"`parley runs {command.name}" in page


def model(key: str) -> dict[str, object]:
    return {
        "key": key,
        "family": "f",
        "provider": "local",
        "engine": "vllm",
        "location": key,
        "context_window": 512,
        "default_strategy": "optimized",
        "state": "ready",
        "reason": None,
    }


def test_the_models_in_use_are_those_of_the_flows_nodes() -> None:
    entries = [model("a"), model("b"), model("c"), {"key": "new", "shape": 1}]
    listed = tolerant(ModelList, {"models": entries, "tiers": {"strong": "b"}}, "allow")
    nodes = [
        {"id": "one", "model": "a"},
        {"id": "two", "role": "critic", "model": "tier:strong"},
        {"id": "three"},
        {"id": "four", "model": "new"},
    ]
    flow = FlowDetail(name="f", spec={"nodes": nodes})
    assert [m.key for m in models_in_use(listed, flow, {})] == ["a", "b"]
    assert [m.key for m in models_in_use(listed, flow, {"critic": "c", "three": "b"})] == ["a", "c", "b"]
    assert models_in_use(ModelList(models=()), FlowDetail(name="f"), {}) == []


def test_another_model_than_the_named_one_is_told() -> None:
    tried = Attempt(model="big", provider="local", outcome="error", message="it asks for 1 GPU(s)")
    answer = GenerationResult.model_validate(GENERATION).model_copy(
        update={"model_resolved": "nano-m", "attempts": (tried,)}
    )
    told = replacement_note(GenerationRequest(prompt="x", model_key="big"), answer)
    assert told == "nano-m answered in the place of big: it asks for 1 GPU(s)"
    for key in (None, "nano-m", "tier:light"):
        assert replacement_note(GenerationRequest(prompt="x", model_key=key), answer) is None


def test_a_better_model_is_suggested_to_whoever_has_none() -> None:
    def runtime(**env: str) -> RuntimeConfig:
        config = load_settings({"PARLEY_HOME": "/h", **env}, None).runtime_config()
        return completed_config(config, load_catalog(config))

    key = "sk-0123456789abcdef"
    assert only_embedded_models(runtime()) and only_embedded_models(None)
    # A key of something else that lies in the shell.
    assert only_embedded_models(runtime(WEATHER_API_KEY=key))
    assert not only_embedded_models(runtime(OPENAI_API_KEY=key))
    assert not only_embedded_models(runtime(PARLEY_MODEL="Qwen/Qwen3-0.6B"))
    assert not only_embedded_models(runtime(PARLEY_MODEL="q", PARLEY_MODEL_URL="http://localhost:11434/v1"))
