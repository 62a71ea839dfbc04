from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from actors.readiness import NOT_STARTED, Part, cause_of, readiness_facts

TRACE = """The deployment failed to start 2 times in a row. Traceback (most recent call last):
  File "x.py", line 1, in start
    raise ValidationError(
registries.contracts.errors.ValidationError: model big: location '/models/big': no such folder
"""


def app(status: str, message: str = "", **deployments: tuple[int, str]) -> Any:
    return SimpleNamespace(
        status=SimpleNamespace(value=status),
        message=message,
        deployments={
            name: SimpleNamespace(
                status=SimpleNamespace(value="HEALTHY"),
                message=words,
                replica_states={"RUNNING": running, "STARTING": 1},
            )
            for name, (running, words) in deployments.items()
        },
    )


API, MODEL = Part("api", "parley"), Part("nano-m", "model-nano-m")


def test_ready_when_every_part_has_a_running_replica() -> None:
    applications = {
        "parley": app("RUNNING", a=(1, ""), b=(2, "")),
        "model-nano-m": app("DEPLOYING", c=(1, "")),
    }
    facts = readiness_facts([API, MODEL], applications, {})
    assert facts == {
        "status": "ready",
        "parts": {n: {"state": "ready", "reason": None} for n in ("api", "nano-m")},
    }


def test_loading_says_what_and_a_first_failed_try_is_told() -> None:
    applications = {"parley": app("RUNNING", a=(1, "")), "model-nano-m": app("DEPLOYING", c=(0, TRACE))}
    facts = readiness_facts([API, MODEL, Part("later", "model-later")], applications, {})
    assert facts["status"] == "loading"
    assert facts["parts"]["later"] == {"state": "loading", "reason": NOT_STARTED}
    assert "no such folder" in facts["parts"]["nano-m"]["reason"]


def test_failed_says_why_without_a_trace() -> None:
    applications = {
        "parley": app("RUNNING", a=(1, "")),
        "model-nano-m": app("DEPLOY_FAILED", "", c=(0, TRACE)),
    }
    facts = readiness_facts(
        [API, MODEL, Part("big", "model-big")], applications, {"big": "it asks for 1 GPU"}
    )
    assert facts["status"] == "failed"
    assert facts["parts"]["nano-m"]["reason"] == "model big: location '/models/big': no such folder"
    assert facts["parts"]["big"] == {"state": "failed", "reason": "it asks for 1 GPU"}


def test_an_api_without_a_runner_is_loading() -> None:
    facts = readiness_facts([API], {"parley": app("DEPLOYING", a=(1, ""), b=(0, ""))}, {})
    assert facts["status"] == "loading"


def test_causes() -> None:
    assert cause_of("") == "no reason given"
    assert cause_of("Traceback:\n  x\nOSError: disk\n") == "OSError: disk"
    assert cause_of("plain words\nmore") == "plain words"
