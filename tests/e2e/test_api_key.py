"""A key of the user's own, on a home that was never used before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import read_state
from tests.e2e.place import Place
from tests.e2e.scripted_place import FOREIGN_KEY, OWN_KEY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_an_own_key_is_taken_and_no_keys_are_in_the_environment_of_the_cluster(runtime: Place) -> None:
    assert runtime.curl("/api/models", key=OWN_KEY)[0] == 200
    assert runtime.curl("/api/models")[0] == 401
    # Another shell, without the variable: the command still finds the key of the running runtime.
    assert json.loads(runtime.good("parley direct --json hello"))["text"] == "It is 85."
    state = read_state(RuntimeHome(runtime.home))
    assert state is not None
    for fact in state.processes:
        text = Path(f"/proc/{fact.pid}/environ").read_bytes()
        assert OWN_KEY.encode() not in text and FOREIGN_KEY.encode() not in text
    logs = [*Path(state.ray_dir).rglob("*.log"), *(runtime.home / "logs").iterdir()]
    texts = [text for log in logs if (text := text_of(log))]
    assert texts and not any(OWN_KEY.encode() in text for text in texts)


def text_of(log: Path) -> bytes:
    """What is in it; nothing once it is gone: HAProxy's manager removes the logs of reloads."""
    try:
        return log.read_bytes() if log.is_file() else b""
    except FileNotFoundError:
        return b""
