"""`parley runs …`, `parley stats` and `parley run --background`, against a real HTTP server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serve_app.cli.shell import Shell
from tests.unit.serve_app.fake_runtime import Answer, FakeRuntime
from tests.unit.serve_app.sample_answers import RUN, event, numbered, run_events

EVENTS = "GET /api/runs/run-1/events?until=waiting"
ONE = "GET /api/runs/run-1?log=false&state=false"
SUMMARY = {"run_id": "run-1", "status": "queued", "flow": "challenge", "flow_version": "v", "created_at": 1.0}
WAITING = {"node": "gate", "interrupt_id": "i", "text": "48 + 37 = 75", "question": "Is this right?"}
ROW = {
    **SUMMARY,
    "status": "completed",
    "priority": 0,
    "user": "admin",
    "attempts": 1,
    "deaths": 0,
    "started_at": 2.0,
    "finished_at": 3.5,
    "last_seq": 9,
    "prompt": "What is\n48 + 37? \x1b[2J" + "x" * 60,
    "answer": "85",
    "usage": RUN["usage"],
}
DETAIL: dict[str, Any] = {
    **ROW,
    "request": {"prompt": "What is 48 + 37?", "flow_type": "challenge"},
    "result": RUN,
    "nodes": RUN["nodes"],
    "timings": RUN["timings"],
    "improvement": RUN["improvement"],
    "cost_usd": 0.0015,
    "feedback": [{"user": "admin", "rating": 0.5, "comment": "so so", "created_at": 4.0}],
    "execution_log": [data for type, data in run_events() if type != "node.token"],
}


def sse(events: list[tuple[str, Any]], cut: bool = False) -> Answer:
    made = FakeRuntime()
    made.events("x", *events, cut=cut)
    return made.answers["x"]


def paused() -> list[tuple[str, Any]]:
    result = {**RUN, "status": "waiting", "answer": "", "waiting": WAITING}
    waits = event("run.waiting", "gate", waiting=WAITING, result=result)
    return numbered([*run_events()[:-1], ("run.waiting", waits)])


def test_background_prints_the_id_alone(shell: Shell, fake: FakeRuntime) -> None:
    fake.json("POST /api/runs", SUMMARY, 202)
    result = shell("run", "x", "--background", "--priority", "5")
    assert result.exit_code == 0 and result.stdout == "run-1\n" and "parley runs watch run-1" in result.stderr
    assert fake.asked[-1][2] == {"prompt": "x", "flow_type": "challenge", "priority": 5, "mode": "background"}
    assert json.loads(shell("run", "x", "-b", "--json").stdout)["status"] == "queued"
    for other in ("--stream", "--demo"):
        result = shell("run", "x", "--background", other)
        assert result.exit_code == 2 and other in result.stderr


def test_a_run_that_waits_says_how_to_answer(shell: Shell, fake: FakeRuntime) -> None:
    fake.json("POST /api/orchestrate", {**RUN, "status": "waiting", "answer": "", "waiting": WAITING})
    whole = shell("run", "x")
    fake.events("POST /api/orchestrate", *paused())
    for result in (whole, shell("run", "x", "--stream")):
        assert result.exit_code == 6
        assert "Is this right?" in result.stdout and "48 + 37 = 75" in result.stdout
        assert "parley runs resume run-1 --question i --approve | --edit TEXT | --reject" in result.stdout


def test_the_list_is_a_table_or_ndjson(shell: Shell, fake: FakeRuntime) -> None:
    rows = [{**ROW, "run_id": f"run-{n}"} for n in range(3)]
    fake.json("GET /api/runs?limit=3", {"runs": rows, "next_cursor": "c"})
    result = shell("runs", "list", "--limit", "2")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["RUN", "STATUS", "FLOW", "CREATED", "TOOK", "COST", "QUESTION"]
    assert len(lines) == 3 and lines[1].startswith("run-0  completed  challenge") and "1.5 s" in lines[1]
    assert "\x1b" not in result.stdout and lines[1].endswith("…") and "there are more" in result.stderr
    told = shell("runs", "list", "--limit", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["run_id"] for line in told] == ["run-0", "run-1"]
    fake.json("GET /api/runs?limit=200", {"runs": rows, "next_cursor": "c"})
    fake.json("GET /api/runs?limit=200&cursor=c", {"runs": [{**ROW, "run_id": "last"}], "next_cursor": None})
    assert shell("runs", "list", "--all").stdout.splitlines()[-1].startswith("last")
    query = "GET /api/runs?limit=21&status=failed%2Cwaiting&flow=linear&user=admin"
    fake.json(query, {"runs": [], "next_cursor": None})
    words = ("--status", "failed", "--status", "waiting", "--flow", "linear", "--user", "admin")
    result = shell("runs", "list", *words)
    assert result.exit_code == 0 and result.stdout == "" and "no runs" in result.stderr
    result = shell("runs", "list", "--status", "done")
    assert result.exit_code == 2 and "completed" in result.stderr


def test_a_run_is_shown_whole(shell: Shell, fake: FakeRuntime) -> None:
    fake.json("GET /api/runs/run-1?log=true&state=false", DETAIL)
    text = shell("runs", "show", "run-1").stdout
    for words in ("85", "$0.001500", "+1.00", "0.5 by admin: so so", "challenger  1", "nano-m", "3 + 4"):
        assert words in text
    assert "node.completed" in text and "1.50 s, 0.00 s queued" in text
    assert json.loads(shell("runs", "show", "run-1", "--json").stdout)["cost_usd"] == 0.0015
    state = {"outputs": {"creator": "75"}}
    points = [{"checkpoint_id": "c-2", "parent_id": "c-1", "step": 2, "next": ["refiner"]}]
    failed = {
        **DETAIL,
        "status": "failed",
        "result": None,
        "error": {"code": "runner_died", "message": "three times"},
        "deaths": 3,
        "parent": "run-0",
    }
    route = "GET /api/runs/run-1?log=false&state=true"
    fake.json(route, {**failed, "state": state, "checkpoints": points, "execution_log": None})
    text = shell("runs", "show", "run-1", "--state", "--no-log").stdout
    for words in ("runner_died: three times", "3 ended by a runner", "run-0", "c-2", '"creator": "75"'):
        assert words in text
    fake.json("GET /api/runs/run-1?log=true&state=false", {**DETAIL, "status": "waiting", "waiting": WAITING})
    assert "parley runs resume run-1" in shell("runs", "show", "run-1").stdout


def test_an_unknown_run_is_one_clear_error(shell: Shell, fake: FakeRuntime) -> None:
    error = {"error": {"code": "not_found", "message": "unknown run 'run'", "param": "run_id"}}
    fake.json("GET /api/runs/run?log=true&state=false", error, 404)
    result = shell("runs", "show", "run")
    assert result.exit_code == 2 and "unknown run 'run'" in result.stderr and result.stdout == ""


def test_watching_shows_what_running_showed(shell: Shell, fake: FakeRuntime) -> None:
    fake.events("POST /api/orchestrate", *run_events())
    live = shell("run", "x", "--stream").stdout
    fake.events(EVENTS, *run_events())
    result = shell("runs", "watch", "run-1")
    assert result.exit_code == 0 and result.stdout == live
    lines = shell("runs", "watch", "run-1", "--json").stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == [type for type, _ in run_events()]


def test_watching_attaches_again(shell: Shell, fake: FakeRuntime) -> None:
    whole = run_events()
    fake.once[EVENTS] = [sse(whole[:4], cut=True), Answer(503, b"<html>restarting</html>"), sse(whole[:6])]
    fake.events(EVENTS, *whole)
    result = shell("runs", "watch", "run-1", "--json")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    seqs = [e["seq"] for e in told if e["type"] != "node.token"]
    assert (
        result.exit_code == 0
        and seqs == list(range(1, len(seqs) + 1))
        and told[-1]["type"] == "run.completed"
    )
    assert "connecting again" in result.stderr


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("cancelled", 7)])
def test_watching_ends_with_the_runs_status(
    shell: Shell,
    fake: FakeRuntime,
    status: str,
    code: int,
) -> None:
    result = {**RUN, "status": status, "error": {"code": "x", "message": "the reason"}}
    end = (f"run.{status}", event(f"run.{status}", result=result))
    fake.events(EVENTS, *numbered([*run_events()[:-1], end]))
    shown = shell("runs", "watch", "run-1")
    assert shown.exit_code == code and "the reason" in shown.stdout


def test_watching_a_run_that_waits(shell: Shell, fake: FakeRuntime) -> None:
    fake.events(EVENTS, *paused())
    result = shell("runs", "watch", "run-1")
    assert result.exit_code == 6 and "Is this right?" in result.stdout


def test_cancelling(shell: Shell, fake: FakeRuntime) -> None:
    route = "POST /api/runs/run-1/cancel"
    fake.json(route, {"run_id": "run-1", "status": "cancelled"})
    assert shell("runs", "cancel", "run-1").stdout == "cancelled\n"
    fake.json(route, {"run_id": "run-1", "status": "running"}, 202)
    assert shell("runs", "cancel", "run-1").stdout == "being stopped\n"
    fake.once[ONE] = [Answer(200, json.dumps({**DETAIL, "status": "running"}).encode())]
    fake.json(ONE, {**DETAIL, "status": "cancelled"})
    result = shell("runs", "cancel", "run-1", "--wait", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout) == {"run_id": "run-1", "status": "cancelled"}
    fake.json(ONE, {**DETAIL, "status": "completed"})
    result = shell("runs", "cancel", "run-1", "--wait")
    assert result.exit_code == 1 and result.stdout == "completed\n"
    fake.json(ONE, {**DETAIL, "status": "running"})
    result = shell("runs", "cancel", "run-1", "--wait", "--timeout", "0.1")
    assert result.exit_code == 1 and "it goes on" in result.stderr
    conflict = {"error": {"code": "conflict", "message": "run run-1 has completed already"}}
    fake.json(route, conflict, 409)
    result = shell("runs", "cancel", "run-1")
    assert result.exit_code == 2 and "has completed already" in result.stderr


def test_restart_fork_and_resume_print_the_id(shell: Shell, fake: FakeRuntime, tmp_path: Path) -> None:
    for what in ("restart", "fork", "resume"):
        fake.json(f"POST /api/runs/run-1/{what}", {**SUMMARY, "run_id": "run-2"}, 202)
    fake.json(ONE, {**DETAIL, "status": "waiting", "waiting": WAITING})
    (tmp_path / "better.txt").write_text("48 + 37 = 85\n")
    for words, body in (
        (("restart", "run-1"), {}),
        (("restart", "run-1", "--deadline", "60"), {"deadline_s": 60.0}),
        (("fork", "run-1"), {}),
        (
            ("fork", "run-1", "--checkpoint", "c1", "--set", "outputs.creator=85"),
            {"checkpoint_id": "c1", "state": {"outputs": {"creator": "85"}}},
        ),
        (("resume", "run-1", "--approve"), {"action": "approve", "interrupt_id": "i"}),
        (
            ("resume", "run-1", "--reject", "--comment", "no"),
            {"action": "reject", "comment": "no", "interrupt_id": "i"},
        ),
        (
            ("resume", "run-1", "--edit", "@better.txt"),
            {"action": "edit", "text": "48 + 37 = 85\n", "interrupt_id": "i"},
        ),
        (
            ("resume", "run-1", "--question", "i-1", "--approve"),
            {"action": "approve", "interrupt_id": "i-1"},
        ),
    ):
        result = shell("runs", *words)
        assert result.exit_code == 0 and result.stdout == "run-2\n", result.output
        assert fake.asked[-1][2] == body
    assert json.loads(shell("runs", "fork", "run-1", "--json").stdout)["run_id"] == "run-2"


def test_a_resumed_run_is_watched_from_there(shell: Shell, fake: FakeRuntime) -> None:
    fake.json(ONE, {**DETAIL, "status": "waiting", "last_seq": 2, "waiting": WAITING})
    fake.json("POST /api/runs/run-1/resume", SUMMARY, 202)
    fake.events(EVENTS, *run_events())
    result = shell("runs", "resume", "run-1", "--approve", "--watch")
    assert result.exit_code == 0 and "answer       85" in result.stdout


def test_what_is_decided_is_shown(shell: Shell, fake: FakeRuntime) -> None:
    asked = {**WAITING, "text": "48 + 37 = 75" + "!" * 500}
    fake.json(ONE, {**DETAIL, "status": "waiting", "waiting": asked})
    fake.json("POST /api/runs/run-1/resume", SUMMARY, 202)
    result = shell("runs", "resume", "run-1", "--approve")
    assert result.stdout == "run-1\n"
    assert "approve: Is this right?  (node gate)" in result.stderr and "48 + 37 = 75!!!" in result.stderr
    assert len(result.stderr) < 500
    assert "48 + 37" not in shell("runs", "resume", "run-1", "--approve", "--json").stderr


def test_a_question_that_is_answered_already_is_not_taken_for_the_next(
    shell: Shell, fake: FakeRuntime
) -> None:
    fake.json(ONE, {**DETAIL, "status": "waiting", "waiting": WAITING})
    told = {"code": "conflict", "message": "run run-1 waits with another question now", "param": "x"}
    fake.json("POST /api/runs/run-1/resume", {"error": told}, 409)
    result = shell("runs", "resume", "run-1", "--question", "i-0", "--approve")
    assert result.exit_code == 2 and "another question now" in result.stderr and result.stdout == ""
    assert fake.asked[-1][2] == {"action": "approve", "interrupt_id": "i-0"}


def test_a_run_that_does_not_wait_is_sent_no_decision(shell: Shell, fake: FakeRuntime) -> None:
    fake.json(ONE, {**DETAIL, "status": "running"})
    result = shell("runs", "resume", "run-1", "--approve")
    assert result.exit_code == 2 and "does not wait for a decision, it is running" in result.stderr
    assert [route for route, *_ in fake.asked] == [ONE], "a question that comes meanwhile was never read"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("resume", "run-1"), "--approve"),
        (("resume", "run-1", "--approve", "--reject"), "--approve"),
        (("resume", "run-1", "--edit", "@/no/such/file"), "/no/such/file"),
        (("fork", "run-1", "--set", "outputs"), "outputs.creator"),
        (("feedback", "run-1", "2"), "rating"),
        (("feedback", "run-1", "nan"), "rating"),
        (("restart", "run-1", "--deadline", "inf"), "deadline_s"),
        (("list", "--limit", "99999999999999999999"), "limit"),
        (("fork", "run-1", "--set", "scores.creator=NaN"), "scores.creator"),
        (("fork", "run-1", "--set", "scores.creator=-Infinity"), "scores.creator"),
        (("fork", "run-1", "--set", "scores.creator=[1e999]"), "scores.creator"),
        (("fork", "run-1", "--set", "scores.creator=" + "[" * 100_000), "scores.creator"),
        (("fork", "run-1", "--set", "outputs.creator=\udcff"), "not valid UTF-8"),
        (("show", "\udcff"), "not valid UTF-8"),
        (("show", ""), "the id of a run is empty"),
        (("show", ".."), "'..' is not the id of a run"),
        (("watch", ""), "is empty"),
        (("cancel", ""), "is empty"),
        (("restart", " "), "is empty"),
        (("fork", ""), "is empty"),
        (("resume", "", "--approve"), "is empty"),
        (("feedback", "", "1"), "is empty"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    shell: Shell,
    fake: FakeRuntime,
    words: tuple[str, ...],
    named: str,
) -> None:
    result = shell("runs", *words)
    assert result.exit_code == 2 and named in result.stderr and fake.asked == []


def test_feedback(shell: Shell, fake: FakeRuntime) -> None:
    fake.json("POST /api/runs/run-1/feedback", {"run_id": "run-1", "rating": 0.5, "comment": "so so"})
    assert shell("runs", "feedback", "run-1", "0.5", "--comment", "so so").stdout == "rated 0.5\n"
    assert fake.asked[-1][2] == {"rating": 0.5, "comment": "so so"}
    told = json.loads(shell("runs", "feedback", "run-1", "0.5", "--json").stdout)
    assert told == {"run_id": "run-1", "rating": 0.5, "comment": "so so"}


def test_statistics_are_tables(shell: Shell, fake: FakeRuntime) -> None:
    latency = {"count": 2, "avg": 1.0, "min": 0.5, "max": 1.5, "p50": 1.0, "p95": 1.5}
    figures = {
        "runs": 3,
        "calls": 3,
        "by_status": {"completed": 2, "failed": 1, "queued": 0},
        "success_rate": 2 / 3,
        "latency_s": latency,
        "tokens": {"prompt": 30, "completion": 12, "total": 42},
        "cost_usd": 0.0015,
        "errors": {"provider_error": 1},
        "cache_hits": 4,
        "satisfaction": {"avg": 0.75, "count": 2},
    }
    nothing = {"runs": 0, "by_status": {}, "success_rate": None, "latency_s": {"count": 0, "avg": None}}
    window = {"since": 1.0, "until": 2.0, "step_s": 3600.0}
    by_name = {"by_flow": {"challenge": figures}, "by_model": {"nano-m": figures}}
    document = {**window, "totals": figures, **by_name, "newer": {"deep": 1}}
    health = {
        "score": 0.9,
        "parts": {"success": {"score": 0.67, "weight": 1, "value": 0.67, "why": "1 of 3 failed"}},
    }
    fake.json("GET /api/stats?hours=24.0", document)
    fake.json("GET /api/stats/health?hours=1", health)
    text = shell("stats").stdout
    for words in (
        "3 in 24 h: 2 completed, 1 failed",
        "66.7%",
        "provider_error: 1",
        "0.75 on average, 2 times",
    ):
        assert words in text
    assert "challenge  3     66.7%    1.00 s  1.50 s  30 in, 12 out  $0.001500  provider_error 1" in text
    assert "health       0.90" in text and "1 of 3 failed" in text
    told = json.loads(shell("stats", "--json").stdout)
    assert told.pop("health")["score"] == 0.9 and told == document
    fake.json("GET /api/stats?hours=1.0&user=nobody", {**window, "totals": nothing, "by_flow": {}})
    text = shell("stats", "--hours", "1", "--user", "nobody").stdout
    assert "0 in 1 h\n" in text and "success      -\n" in text
