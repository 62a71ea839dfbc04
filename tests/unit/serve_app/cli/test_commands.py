"""The commands as a user types them, against a real HTTP server or none, in an empty PARLEY_HOME."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import psutil
import pytest

from actors.ray_token import ensure_ray_token
from registries.contracts.config import RuntimeConfig
from tests.machine_pace import paced
from tests.unit.serve_app.cli.shell import Shell
from tests.unit.serve_app.fake_runtime import FakeRuntime
from tests.unit.serve_app.sample_answers import GENERATION, RUN, run_events


def test_without_a_runtime_commands_say_so(shell: Shell) -> None:
    result = shell("status")
    assert result.exit_code == 3 and "not running" in result.stdout
    assert json.loads(shell("status", "--json").stdout) == {"status": "not_running"}
    result = shell("run", "hello", PORT="9")
    assert result.exit_code == 3 and "parley up" in result.stderr and result.stdout == ""
    result = shell("down")
    assert result.exit_code == 0 and "nothing to stop" in result.stdout
    assert json.loads(shell("down", "--json").stdout)["was_there"] is False


def test_a_whole_run_prints_roles_answer_and_facts(shell: Shell, fake: FakeRuntime) -> None:
    fake.json("POST /api/orchestrate", RUN)
    result = shell(
        "run", "What is 48 + 37?", "--model", "creator=nano-s", "--seed", "7", "--max-tokens", "20"
    )
    assert result.exit_code == 0, result.stderr
    for words in (
        "creator",
        "I get 85. Wrong.",
        "nano-m, 4 tokens, 0.25 s",
        "+1.00",
        "$0.001500",
        "run-1.json",
    ):
        assert words in result.stdout
    route, key, body = fake.asked[-1]
    assert route == "POST /api/orchestrate" and key == shell.home.saved_key()
    assert body == {
        "prompt": "What is 48 + 37?",
        "flow_type": "challenge",
        "models": {"creator": "nano-s"},
        "max_tokens": 20,
        "seed": 7,
        "stream": False,
    }


def test_a_streamed_run_prints_the_same(shell: Shell, fake: FakeRuntime) -> None:
    fake.json("POST /api/orchestrate", RUN)
    whole = shell("run", "x").stdout
    fake.events("POST /api/orchestrate", *run_events())
    assert shell("run", "x", "--stream").stdout == whole


def test_json_is_one_value_and_streams_are_one_value_a_line(shell: Shell, fake: FakeRuntime) -> None:
    fake.json("POST /api/orchestrate", RUN)
    assert json.loads(shell("run", "x", "--json").stdout)["answer"] == "85"
    fake.events("POST /api/orchestrate", *run_events())
    lines = shell("run", "x", "--json", "--stream").stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == [type for type, _ in run_events()]


def test_a_failed_run_is_exit_code_one(shell: Shell, fake: FakeRuntime) -> None:
    error = {"code": "provider_error", "message": "nobody answered"}
    fake.json("POST /api/orchestrate", RUN | {"status": "failed", "answer": "", "error": error})
    result = shell("run", "x")
    assert result.exit_code == 1 and "nobody answered" in result.stdout


def test_an_error_of_the_api_is_words_and_a_code(shell: Shell, fake: FakeRuntime) -> None:
    error = {"code": "invalid_request", "message": "field 'seed': no", "param": "seed", "request_id": "r-1"}
    fake.json("POST /api/orchestrate", {"error": error}, 400)
    result = shell("run", "x")
    assert result.exit_code == 2 and "error: field 'seed': no [request r-1]" in result.stderr
    result = shell("run", "x", "--json")
    assert json.loads(result.stdout)["error"]["param"] == "seed"
    fake.json("POST /api/orchestrate", {"error": {"code": "unauthorized", "message": "no"}}, 401)
    assert shell("run", "x").exit_code == 5
    fake.json(
        "POST /api/orchestrate",
        {"error": {"code": "capacity", "message": "full"}},
        429,
        **{"retry-after": "60"},
    )
    result = shell("run", "x")
    assert result.exit_code == 1 and "try again in 60 s" in result.stderr, "too long to wait for in a command"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("run",), "no question"),
        (("run", ""), "no question"),
        (("run", "x", "--seed", "-1"), "seed"),
        (("run", "x", "--max-tokens", "99999999"), "max_tokens"),
        (("run", "x", "--deadline", "nan"), "deadline_s"),
        (("run", "x", "--model", "creator"), "ROLE=MODEL"),
        (("direct", "x", "--temperature", "9"), "temperature"),
        (("direct", "x", "--image", "/no/such.png"), "/no/such.png"),
        (("direct", "x", "--engine", "gguf"), "PARLEY_ENGINE"),
        (("direct", "x", "--local", "--model", "nano-x"), "nano-x"),
        (("up", "--port", "99999"), "PORT"),
        (("up", "--model", "/no/such/model"), "/no/such/model"),
        (("flows", "chalenge"), "challenge"),
    ],
)
def test_bad_input_is_named_and_is_exit_code_two(shell: Shell, words: tuple[str, ...], named: str) -> None:
    result = shell(*words)
    assert result.exit_code == 2, result.output
    assert named in result.stderr and "Traceback" not in result.output


def test_terminal_escapes_of_a_model_do_not_arrive(shell: Shell, fake: FakeRuntime) -> None:
    fake.json("POST /api/orchestrate", RUN | {"answer": "\x1b]0;evil\x07[red]85[/red]\x1b[2J"})
    result = shell("run", "x")
    assert "\x1b" not in result.stdout and "[red]85[/red]" in result.stdout


def test_the_demo_shows_where_to_go_next(started: Shell, fake: FakeRuntime) -> None:
    fake.events("POST /api/orchestrate", *run_events())
    result = started("run", "--demo")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("challenge: What is 512 - 187?")
    assert f"curl -s http://127.0.0.1:{fake.port}/api/orchestrate" in result.stdout
    assert f"$(cat {started.home.admin_key_file})" in result.stdout
    assert started.home.saved_key() not in result.output  # type: ignore[operator]
    assert f"http://127.0.0.1:{fake.port}/docs" in result.stdout and "http://127.0.0.1:1 " in result.stdout
    started("run", "--demo", PROMPT="Why?", FLOW="challenge")
    assert fake.asked[-1][2]["prompt"] == "Why?"


def test_a_question_outside_the_models_scope_is_said_before_the_answer(
    shell: Shell, fake: FakeRuntime
) -> None:
    nano = {
        "key": "nano-m",
        "family": "nano",
        "provider": "local",
        "engine": "vllm",
        "location": "embedded:nano-m",
        "context_window": 512,
        "default_strategy": "optimized",
        "scope": {"description": "sums", "pattern": r"^\d+"},
        "state": "ready",
    }
    fake.json("GET /api/models", {"models": [nano], "tiers": {"strong": "nano-m"}})
    fake.json("POST /api/orchestrate", RUN)
    assert "note: This question is outside" in shell("run", "Why is the sky blue?").stderr
    assert "note:" not in shell("run", "1 + 1").stderr


def test_direct_uses_the_running_runtime(started: Shell, fake: FakeRuntime) -> None:
    fake.json("POST /api/inference", GENERATION)
    result = started("direct", "x", "--system", "Be short.", "--stop", "\n", "--temperature", "0.5")
    assert result.exit_code == 0 and result.stdout == "48 + 37 = 85\n" and "nano-m (local)" in result.stderr
    body = fake.asked[-1][2]
    assert (
        body["context"] == {"system": "Be short."} and body["stop"] == ["\n"] and body["temperature"] == 0.5
    )
    fake.events(
        "POST /api/inference", ("token", {"text": "8"}), ("token", {"text": "5"}), ("result", GENERATION)
    )
    assert started("direct", "-", "--stream", input="x\n").stdout == "85\n"
    lines = [json.loads(line) for line in started("direct", "x", "--stream", "--json").stdout.splitlines()]
    assert [line["type"] for line in lines] == ["token", "token", "result"]
    fake.json("POST /api/inference", GENERATION)
    assert json.loads(started("direct", "x", "--json").stdout)["model_resolved"] == "nano-m"


def test_direct_asks_the_configured_provider_where_no_model_is_named(shell: Shell, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    (catalog / "models.yaml").write_text(
        "models:\n"
        "  - {key: theirs, family: general, provider: them, engine: scripted, location: inline,\n"
        "     enabled: false, api_key_env: THEIR_API_KEY, context_window: 512, default_strategy: optimized,\n"
        "     engine_options: {script: {answers: [{texts: ['It is 85.']}]}}}\n"
    )
    key = {"PARLEY_CATALOG_DIRS": str(catalog), "THEIR_API_KEY": "sk-0123456789abcdef"}
    result = shell("direct", "hello", **key)
    assert result.exit_code == 0 and result.stdout == "It is 85.\n", result.output


def test_direct_works_without_a_runtime(shell: Shell, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    (catalog / "models.yaml").write_text(
        "models:\n"
        "  - {key: actor, family: general, provider: scripted, engine: scripted, location: inline,\n"
        "     context_window: 512, default_strategy: optimized,\n"
        "     engine_options: {script: {answers: [{texts: ['It is 85.']}]}}}\n"
    )
    result = shell("direct", "hello", "--model", "actor", PARLEY_CATALOG_DIRS=str(catalog))
    assert result.exit_code == 0, result.output
    assert result.stdout == "It is 85.\n" and "loading actor" in result.stderr
    result = shell("direct", "hello", "--model", "actor", "--stream", PARLEY_CATALOG_DIRS=str(catalog))
    assert result.stdout == "It is 85.\n"


def test_status_tells_parts_and_their_reasons(started: Shell, fake: FakeRuntime) -> None:
    parts = {"nano-m": {"state": "failed", "reason": "no folder"}, "api": {"state": "ready"}}
    fake.json("GET /api/ready", {"status": "failed", "parts": parts}, 503)
    result = started("status")
    assert result.exit_code == 0 and "failed  (no folder)" in result.stdout
    facts = json.loads(started("status", "--json").stdout)
    assert facts["status"] == "failed" and facts["api"] == f"http://127.0.0.1:{fake.port}"


def test_a_crashed_runtime_is_called_crashed(started: Shell) -> None:
    state = json.loads(started.home.state_file.read_text())
    psutil.Process(state["processes"][0]["pid"]).kill()
    psutil.wait_procs([psutil.Process(state["processes"][0]["pid"])], timeout=paced(5))
    result = started("status")
    assert result.exit_code == 3 and "crashed" in result.stdout
    assert json.loads(started("status", "--json").stdout) == {"status": "crashed"}


def test_up_finds_the_running_runtime_and_waits_for_it(started: Shell, fake: FakeRuntime) -> None:
    fake.json("GET /api/ready", {"status": "ready", "parts": {}})
    result = started("up", "--json")
    facts = json.loads(result.stdout)
    assert result.exit_code == 0 and facts["status"] == "ready" and facts["fresh"] is False
    assert "running already" in result.stderr
    parts = {"nano-m": {"state": "failed", "reason": "no folder"}}
    fake.json("GET /api/ready", {"status": "failed", "parts": parts}, 503)
    result = started("up")
    assert result.exit_code == 4 and "nano-m failed: no folder" in result.stderr
    assert started("up", "--no-wait").exit_code == 0


def test_up_refuses_a_port_in_use_and_leaves_nothing(shell: Shell, fake: FakeRuntime) -> None:
    result = shell("up")
    assert result.exit_code == 4
    assert f"port {fake.port} (the HTTP API) is in use by" in result.stderr and "--port" in result.stderr
    assert shell("status").exit_code == 3


def test_up_names_what_is_wrong_in_a_catalog(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("models: [{key: x}]\n: bad")
    result = shell("up", PARLEY_CATALOG_DIRS=str(tmp_path), PORT="1")
    assert result.exit_code == 2 and "models.yaml" in result.stderr


def test_models_and_flows_come_from_the_runtime_or_the_files(
    shell: Shell, started: Shell, fake: FakeRuntime
) -> None:
    nano = {"key": "m", "engine": "vllm", "provider": "local", "state": "ready", "reason": None}
    fake.json("GET /api/models", {"models": [nano], "tiers": {"strong": "m"}})
    assert started("models").stdout.splitlines()[1].split() == ["m", "vllm", "local", "ready", "strong"]
    fake.json("GET /api/flows", {"flows": [{"name": "f", "roles": ["a", "b"], "description": "does"}]})
    assert "f     a, b   does" in started("flows").stdout
    fake.json("GET /api/flows/f", {"name": "f", "spec": {"name": "f"}, "mermaid": "flowchart TD"})
    assert "flowchart TD" in started("flows", "f").stdout
    assert json.loads(started("flows", "f", "--json").stdout)["name"] == "f"
    started.home.state_file.unlink()
    psutil_free = Shell(shell.home.path.parent / "other", fake.port)
    assert "nano-m" in psutil_free("models").stdout and "not_loaded" in psutil_free("models").stdout
    assert "challenge" in psutil_free("flows").stdout
    assert "challenger.no_fault" in psutil_free("flows", "challenge").stdout
    assert len(json.loads(psutil_free("flows", "--json").stdout)["flows"]) >= 3


def test_the_token_is_data_and_its_use_is_said_beside(shell: Shell) -> None:
    result = shell("token")
    assert result.exit_code == 2 and "parley up" in result.stderr
    path = ensure_ray_token(RuntimeConfig(home=str(shell.home.path)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    result = shell("token")
    assert result.stdout == path.read_text().strip() + "\n" and "ray job submit" in result.stderr
    assert json.loads(shell("token", "--json").stdout)["token"] == path.read_text().strip()


def test_wrong_settings_are_refused_by_every_command(shell: Shell) -> None:
    for words in (("up",), ("status",), ("run", "x"), ("models",), ("doctor",), ("down",)):
        result = shell(*words, LOG_LEVEL="loud")
        assert result.exit_code == 2 and "LOG_LEVEL='loud'" in result.stderr, words


def test_a_fault_of_ours_is_words_and_a_private_file(shell: Shell, fake: FakeRuntime) -> None:
    fake.json("GET /api/flows/challenge", {"name": "challenge", "spec": {"nodes": [{"no": "id"}]}})
    result = shell("run", "x")
    assert result.exit_code == 1 and "a fault in parley itself" in result.stderr
    assert "Traceback" not in result.output
    log = shell.home.logs_dir / "crash.log"
    assert "Traceback" in log.read_text() and stat.S_IMODE(log.stat().st_mode) == 0o600
    assert os.path.getsize(log) > 0


def test_help_names_every_command(shell: Shell) -> None:
    text = shell("--help").stdout
    for name in (
        "up",
        "down",
        "status",
        "run",
        "direct",
        "models",
        "flows",
        "doctor",
        "token",
        "runs",
        "stats",
    ):
        assert f"  {name} " in text


def test_the_doctor_speaks_in_words_and_in_json(shell: Shell, fake: FakeRuntime) -> None:
    result = shell("doctor")
    assert result.exit_code == 1, "the port of the fake is in use"
    assert f"MISSING  port {fake.port}" in result.stdout and "-> set PORT to another port" in result.stdout
    report = json.loads(shell("doctor", "--json").stdout)
    assert report["ok"] is False
    assert {"name", "verdict", "detail", "advice"} == set(report["checks"][0])
