"""`make run` and `make stop` as a newcomer types them; between them curl, and the session of the README."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve_app.run_listener import SILENCE_S
from tests.e2e.newcomer import Newcomer
from tests.e2e.place import Place, all_listeners, sse
from tests.e2e.readme_commands import commands
from tests.machine_pace import paced

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
QUESTION = "What is 48 + 37?"
FLOWS = ("linear", "challenge", "multi_perspective")
ORDERS = 5
Events = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    someone = Newcomer(tmp_path_factory.mktemp("newcomer"))
    yield someone
    someone.type("parley down")


@pytest.fixture(scope="module")
def place(newcomer: Newcomer) -> Place:
    return newcomer.place


@pytest.fixture(scope="module")
def first_run(newcomer: Newcomer) -> str:
    """What the README's first line prints on a machine where nothing runs."""
    first, *_ = commands("session")
    assert first.text == "make run"
    done = newcomer.type(first.text)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_make_run_shows_a_deliberation_and_where_to_go_next(place: Place, first_run: str) -> None:
    assert "challenge: What is 512 - 187?" in first_run
    for words in ("creator", "challenger", "answer ", "time ", "tokens ", "cost ", "improvement", "saved in"):
        assert words in first_run
    assert f"http://127.0.0.1:{place.port}/docs" in first_run
    assert f"http://127.0.0.1:{place.dashboard_port}" in first_run


def test_the_curl_that_it_prints_works_as_it_stands(place: Place, first_run: str) -> None:
    (line,) = re.findall(r"^curl .*$", first_run, re.MULTILINE)
    answer = json.loads(place.good(line))
    assert answer["status"] == "completed" and answer["flow"] == "challenge"


def test_a_second_make_run_takes_seconds_and_takes_another_question(place: Place, first_run: str) -> None:
    begun = time.monotonic()
    done = place.type("make -s run", PROMPT="Why is the sky blue?", FLOW="linear")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < paced(20)
    assert "linear: Why is the sky blue?" in done.stdout
    assert "outside what" in done.stderr
    assert done.stdout.count("answer ") >= 1


@pytest.mark.parametrize("flow", FLOWS)
def test_curl_runs_a_flow_whole(place: Place, first_run: str, flow: str) -> None:
    status, text = place.curl("/api/orchestrate", {"flow_type": flow, "prompt": QUESTION})
    run = json.loads(text)
    assert status == 200 and run["status"] == "completed" and run["answer"]
    assert Path(run["artifact"]).name == f"{run['run_id']}.json"
    assert json.loads(Path(run["artifact"]).read_text())["run_id"] == run["run_id"]


@pytest.mark.parametrize("flow", FLOWS)
def test_curl_runs_a_flow_streamed(place: Place, first_run: str, flow: str) -> None:
    def order() -> Events:
        body = {"flow_type": flow, "prompt": QUESTION, "stream": True}
        status, text = place.curl("/api/orchestrate", body)
        assert status == 200, text
        return sse(text)

    events = streamed_by_its_runner(order)
    assert events[-1][0] == "run.completed"
    assert [type_ for type_, _ in events[:2]] == ["run.queued", "run.started"]
    result = events[-1][1]["data"]["result"]
    assert result["status"] == "completed"
    said: dict[tuple[str, int], str] = {}
    for type_, event in events:
        if type_ == "node.token":
            key = (event["node"], event["data"]["visit"])
            said[key] = said.get(key, "") + event["data"]["text"]
    texts = {(node["id"], node["visit"]): node["text"] for node in result["nodes"]}
    assert said and all(texts[key] == text for key, text in said.items())
    numbers = [event["seq"] for type_, event in events if type_ != "node.token"]
    assert numbers == list(range(1, len(numbers) + 1))


def streamed_by_its_runner(order: Callable[[], Events]) -> Events:
    """The events of a run that a runner began before the front door accepted it itself.

    Such a run may be streamed from the database, which has no tokens: they are volatile. Ordered again, then.
    """
    for _ in range(ORDERS):
        ordered_at = time.time()
        events = order()
        started = [event["time"] for type_, event in events if type_ == "run.started"]
        if not started or started[0] - ordered_at < SILENCE_S:
            return events
        print(f"begun {started[0] - ordered_at:.1f} s after its order")
    raise AssertionError(f"of {ORDERS} runs none was begun within {SILENCE_S:g} s")


def test_curl_asks_one_model_whole_and_streamed(place: Place, first_run: str) -> None:
    body = {"prompt": QUESTION, "model_key": "nano-m", "temperature": 0}
    status, text = place.curl("/api/inference", body)
    whole = json.loads(text)
    assert status == 200 and whole["model_resolved"] == "nano-m" and whole["source"] == "local"
    status, text = place.curl("/api/inference", body | {"stream": True})
    events = sse(text)
    assert events[-1][0] == "result" and events[-1][1]["text"] == whole["text"]
    assert "".join(data["text"] for type_, data in events if type_ == "token") == whole["text"]


@pytest.mark.parametrize(
    ("path", "raw", "status", "named"),
    [
        ("/api/orchestrate", "", 400, "body"),
        ("/api/orchestrate", "{", 400, "JSON"),
        ("/api/orchestrate", '{"flow_type": "nope", "prompt": "x"}', 404, "nope"),
        ("/api/orchestrate", '{"flow_type": "challenge"}', 400, "prompt"),
        ("/api/inference", '{"prompt": "x", "model_key": "nano-x"}', 404, "nano-x"),
        ("/api/inference", '{"prompt": "x", "strategy": "nope"}', 404, "nope"),
        ("/api/inference", '{"prompt": "x", "max_tokens": -1}', 400, "max_tokens"),
        ("/api/inference", '{"prompt": "x", "max_tokens": 99999999}', 400, "max_tokens"),
        ("/api/inference", '{"prompt": 7}', 400, "prompt"),
        ("/api/inference", json.dumps({"prompt": "1 + " * 2000, "model_key": "nano-m"}), 400, "context"),
    ],
)
def test_bad_input_gets_one_clear_error(
    place: Place, first_run: str, path: str, raw: str, status: int, named: str
) -> None:
    got, text = place.curl(path, raw=raw)
    error = json.loads(text)["error"]
    assert got == status, text
    assert named in error["message"] and error["request_id"] and "Traceback" not in text


def test_without_the_key_only_the_open_routes_answer(place: Place, first_run: str) -> None:
    for path in ("/api/health", "/api/ready", "/docs", "/openapi.json"):
        assert place.curl(path, key="")[0] == 200, path
    for path in ("/api/models", "/api/flows", "/api/system", "/metrics", "/api/strategies"):
        assert place.curl(path, key="")[0] == 401, path
        assert place.curl(path, key="wrong-key-0123456789")[0] == 401, path
        assert place.curl(path)[0] == 200, path
    assert "parts" not in json.loads(place.curl("/api/ready", key="")[1])


def test_the_commands_agree_with_the_api(place: Place, first_run: str) -> None:
    # It asks for five seconds at most, and shows a runtime that answers later as one that starts.
    facts = poll(
        lambda: json.loads(place.good("parley status --json")), lambda facts: facts["status"] == "ready"
    )
    assert facts["parts"]["nano-m"]["state"] == "ready"
    models = json.loads(place.good("parley models --json"))["models"]
    assert {m["key"] for m in models if m["state"] == "ready"} == {"nano-m", "nano-s"}
    run = json.loads(place.good(f"parley run --json --model creator=nano-m '{QUESTION}'"))
    assert run["nodes"][0]["model_resolved"] == "nano-m"
    lines = place.good(f"parley run --json --stream '{QUESTION}'").splitlines()
    assert json.loads(lines[-1])["type"] == "run.completed"
    assert place.good(f"parley direct --model nano-s '{QUESTION}'").strip()
    assert place.type("parley run --flow nope x").returncode == 2


def test_a_killed_vllm_replica_comes_back_by_itself(place: Place, first_run: str) -> None:
    """Meanwhile every answer is right or an error of ours, and no engine is left behind."""
    # `make run` waits for the model that it asks; a replica that still loads has no engine yet.
    wait_until_ready(place, "nano-s", 75)
    (victim,) = titled(place, "ray::ServeReplica:model-nano-s:")
    engines = len(titled(place, "EngineCore"))
    victim.kill()
    killed_at = time.monotonic()
    body = {"prompt": QUESTION, "model_key": "nano-s", "temperature": 0}
    while time.monotonic() - killed_at < paced(75):
        status, text = place.curl("/api/inference", body)
        answer = json.loads(text)
        assert status == 200 or answer["error"]["code"] in ("capacity", "provider_error"), text
        if status == 200 and answer["model_resolved"] == "nano-s":
            break
        assert status != 200 or "85" in answer["text"]
        time.sleep(1)
    assert status == 200 and answer["model_resolved"] == "nano-s", text
    assert "parts" in json.loads(place.curl("/api/ready")[1])
    assert len(titled(place, "EngineCore")) == engines
    print(f"nano-s answered again {time.monotonic() - killed_at:.0f} s after its replica was killed")


def wait_until_ready(place: Place, part: str, timeout_s: float) -> None:
    # Without the part while Serve's controller does not answer.
    poll(
        lambda: json.loads(place.curl("/api/ready")[1])["parts"],
        lambda parts: parts.get(part, {}).get("state") == "ready",
        timeout_s,
    )


def poll(ask: Callable[[], Any], is_it: Callable[[Any], bool], timeout_s: float = 30) -> Any:
    """The first answer that is it; AssertionError with the last one when none is, in that many seconds on the
    usual machine."""
    ends_at = time.monotonic() + paced(timeout_s)
    while not is_it(answer := ask()):
        assert time.monotonic() < ends_at, f"not what was waited for: {answer}"
        time.sleep(0.5)
    return answer


def titled(place: Place, title: str) -> list[psutil.Process]:
    """This runtime's processes with these words in their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if title in " ".join(process.cmdline()) and process.environ().get("PARLEY_HOME") == str(
                place.home
            ):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_the_session_of_the_readme(newcomer: Newcomer, first_run: str) -> None:
    """Its first line finds the runtime that the same line has started for this module."""
    printed: list[tuple[str, str]] = []
    heard = ""
    for command in commands("session"):
        if command.text.startswith("kill"):
            heard = system_with_owner(newcomer.place)
        typed_at = time.monotonic()
        done = typed(newcomer, command.text)
        print(f"{time.monotonic() - typed_at:6.1f} s  {command.text}")
        said = f"{command.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{heard}"
        assert done.returncode == command.exit_code, said
        printed.append((command.text, done.stdout))
    assert "48 + 37 = 85" in "".join(text for line, text in printed if line.startswith("parley"))
    whole = next(text for line, text in printed if line.startswith("curl") and "challenge" in line)
    assert json.loads(whole)["status"] == "completed"
    streamed = next(text for line, text in printed if line.startswith("curl -sN"))
    assert "event: node.token" in streamed and "event: run.completed" in streamed
    begun = [text for line, text in printed if line.startswith("RUN=")]
    shown = [json.loads(newcomer.type(f"parley runs show {run_id} --json").stdout) for run_id in begun]
    assert {run["status"] for run in shown} == {"completed"}
    happened = {event["type"] for run in shown for event in run["execution_log"]}
    assert {"run.waiting", "run.resumed", "run.failed", "run.restarted"} <= happened


def system_with_owner(place: Place) -> str:
    """What /api/system says once the runner's report is in it: one that has just begun a run may be too busy
    to report in time."""
    return str(poll(lambda: place.curl("/api/system")[1], lambda text: '"owner":"' in text))


def typed(newcomer: Newcomer, line: str) -> subprocess.CompletedProcess[str]:
    """Type a line of the session; one that streams a run, until its runner has streamed it."""
    if not line.startswith("curl -sN"):
        return newcomer.type(line)
    done: list[subprocess.CompletedProcess[str]] = []

    def order() -> Events:
        done.append(newcomer.type(line))
        return sse(done[-1].stdout)

    streamed_by_its_runner(order)
    return done[-1]


def test_make_stop_leaves_no_process_and_no_port(newcomer: Newcomer, place: Place, first_run: str) -> None:
    ours = place.listening()
    assert place.port in ours and place.dashboard_port in ours and place.processes()
    (command,) = commands("stop")
    begun = time.monotonic()
    assert newcomer.type(command.text).returncode == 0
    assert time.monotonic() - begun < paced(15)
    assert place.processes() == [] and newcomer.processes() == []
    assert not ours & all_listeners()
    assert "nothing to stop" in place.good("make -s stop")
    assert place.type("parley status").returncode == 3
