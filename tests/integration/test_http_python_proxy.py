"""The same front door behind Serve's Python proxy, which is what macOS has."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.integration.front_door_client import QUESTION, front_door_client, running_calls, wait_for
from tests.runtime_cluster import running_cluster
from tests.unit.serve_app.front_door import events_of


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with (
        running_cluster(haproxy=False, models=("fast", "endless"), expert_workers=0) as running,
        front_door_client(running) as client,
    ):
        yield client


def test_answers_streams_and_errors(http: httpx.Client) -> None:
    ask = {"prompt": QUESTION, "model_key": "fast"}
    whole = http.post("/api/inference", json=ask, headers={"x-request-id": "mine-1"})
    streamed = http.post("/api/inference", json={**ask, "stream": True})
    run = http.post("/api/orchestrate", json={"prompt": QUESTION, "flow_type": "challenge", "stream": True})
    wrong = http.post("/api/inference", json={"prompt": "hi", "max_tokens": 0})
    huge = http.post("/api/inference", content=b"x" * 8_000_001)
    open_door = httpx.get(f"{http.base_url}/api/models", trust_env=False)
    assert whole.json()["text"] == "The answer is 84."
    assert whole.headers.get_list("x-request-id") == ["mine-1"]
    assert events_of(streamed.text)[-1][0] == "result"
    assert events_of(run.text)[-1][0] == "run.completed"
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "max_tokens"
    assert huge.status_code == 413 and open_door.status_code == 401


def test_clients_that_leave_free_the_engine(http: httpx.Client) -> None:
    ask = {"prompt": "go on", "model_key": "endless"}
    with http.stream("POST", "/api/inference", json={**ask, "stream": True}) as answer:
        # Held: httpx closes the connection when the iterator is collected.
        lines = answer.iter_lines()
        assert next(lines) == "event: token"
        wait_for(lambda: running_calls(http, "endless") == 1, 20)
    wait_for(lambda: running_calls(http, "endless") == 0, 10)
    with pytest.raises(httpx.ReadTimeout):
        http.post("/api/inference", json=ask, timeout=1.5)
    wait_for(lambda: running_calls(http, "endless") == 0, 10)
