"""The code of docs/client.md runs as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.lifecycle.runtime_home import RuntimeHome
from tests.unit.serve_app.fake_runtime import Answer, FakeRuntime, fake_runtime
from tests.unit.serve_app.sample_answers import RUN, run_events

GUIDE = Path(__file__).parents[4] / "docs" / "client.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
SUMMARY = {"run_id": "run-1", "status": "queued", "flow": "challenge"}
DETAIL = {**SUMMARY, "status": "completed", "answer": "85", "cost_usd": 0.0015, "attempts": 1, "result": RUN}
WINDOW = {"since": 1.0, "until": 2.0, "step_s": 3600.0}
SAID = ["85", "85", "run.completed", "", "", "ready", "no such run r-1", "85\n85"]
"""What each block prints, in the order of the guide (a part of it)."""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRuntime]:
    home = RuntimeHome(tmp_path / "home")
    home.ensure()
    home.admin_key()
    with fake_runtime() as made:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PARLEY_HOME", str(home.path))
        monkeypatch.setenv("PORT", str(made.port))
        monkeypatch.delenv("PARLEY_API_KEY", raising=False)
        _fill(made)
        yield made


def _fill(fake: FakeRuntime) -> None:
    fake.json("POST /api/orchestrate", RUN)
    fake.json("POST /api/runs", SUMMARY, 202)
    fake.events("GET /api/runs/run-1/events?until=waiting", *run_events())
    fake.json("GET /api/runs/run-1?log=false&state=false", DETAIL)
    asked = {"node": "approval", "interrupt_id": "i-1", "text": "48 + 37 = 75", "question": "Send it?"}
    waits = {**SUMMARY, "run_id": "b", "status": "waiting", "waiting": asked}
    rows: list[dict[str, Any]] = [{**SUMMARY, "run_id": "a", "status": "failed"}, waits]
    fake.json("GET /api/runs?status=failed%2Cwaiting&flow=challenge", {"runs": rows, "next_cursor": None})
    for row in rows:
        fake.json(f"GET /api/runs/{row['run_id']}?log=true&state=false", row)
    fake.json("GET /api/runs?limit=1", {"runs": [DETAIL], "next_cursor": "c"})
    for what in ("a/restart", "b/resume", "run-1/fork"):
        fake.json(f"POST /api/runs/{what}", SUMMARY, 202)
    fake.json("POST /api/runs/run-1/cancel", {"run_id": "run-1", "status": "cancelled"})
    fake.json("POST /api/runs/run-1/feedback", {"run_id": "run-1", "rating": 1, "comment": "just right"})
    fake.json("GET /api/stats?hours=24", {**WINDOW, "totals": {"runs": 3}})
    fake.json("GET /api/stats/health?hours=1", {"score": 1.0, "parts": {}})
    fake.json("GET /api/ready", {"status": "ready"})
    missing = {"error": {"code": "not_found", "message": "no such run", "request_id": "r-1"}}
    fake.json("GET /api/runs/no-such-run?log=true&state=false", missing, 404)


@pytest.mark.parametrize(("number", "said"), list(enumerate(SAID)))
def test_a_block_of_the_guide_runs(
    fake: FakeRuntime, capsys: pytest.CaptureFixture[str], number: int, said: str
) -> None:
    block = BLOCKS[number]
    if "stream_run" in block:
        streamed = FakeRuntime()
        streamed.events("POST /api/orchestrate", *run_events())
        fake.answers["POST /api/orchestrate"] = streamed.answers["POST /api/orchestrate"]
    exec(compile(block, f"client.md block {number}", "exec"), {"__name__": "guide"})
    assert said in capsys.readouterr().out
    asked = {route for route, _, _ in fake.asked}
    assert asked and all(isinstance(fake.answers[route], Answer) for route in asked)


def test_every_block_is_run() -> None:
    assert len(SAID) == len(BLOCKS)
