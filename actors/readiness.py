"""What is loading, what is ready, what failed and why: Serve's status in the runtime's own words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ready", "loading", "failed"]
_OWN_ERROR = re.compile(r"^(?:registries\.contracts\.errors\.)(\w+): (.+)$", re.MULTILINE)
_ANY_ERROR = re.compile(r"^[\w.]*(?:Error|Exception|Exit)\b(?:: .+)?$", re.MULTILINE)
MAX_REASON_CHARS = 400
NOT_STARTED = "not started yet"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the runtime, and the Serve application that it is."""

    name: str
    app: str


def readiness_facts(
    parts: Iterable[Part], applications: Mapping[str, Any], problems: Mapping[str, str]
) -> dict[str, Any]:
    """``{"status", "parts": {name: {"state", "reason"}}}``, the answer of /api/ready.

    ``applications`` are serve.status().applications; ``problems`` are the reasons, by part, why some were
    never handed to Serve. Loading outweighs failed: who waits for its end learns of all failures.
    """
    facts = {p.name: _part(applications.get(p.app), problems.get(p.name)) for p in parts}
    states = {fact["state"] for fact in facts.values()}
    status: State = "loading" if "loading" in states else "failed" if "failed" in states else "ready"
    return {"status": status, "parts": facts}


def _part(application: Any | None, problem: str | None) -> dict[str, Any]:
    if application is None:
        return {"state": "failed" if problem else "loading", "reason": problem or NOT_STARTED}
    deployments = list(application.deployments.values())
    status = _value(application.status)
    if deployments and all(_running(d) > 0 for d in deployments):
        degraded = [d.message for d in deployments if _value(d.status) == "UNHEALTHY"]
        return {"state": "ready", "reason": cause_of(degraded[0]) if degraded else None}
    messages = [application.message, *(d.message for d in deployments)]
    reason = next((cause_of(m) for m in messages if _ANY_ERROR.search(m or "")), None)
    if status == "DEPLOY_FAILED":
        return {"state": "failed", "reason": reason or cause_of(next((m for m in messages if m), ""))}
    return {"state": "loading", "reason": f"a start failed and is tried again: {reason}" if reason else None}


def cause_of(message: str) -> str:
    """The error's own words out of Serve's message, which holds a stack trace; never the trace itself."""
    own = _OWN_ERROR.findall(message)
    if own:
        return str(own[-1][1])[:MAX_REASON_CHARS]
    errors = _ANY_ERROR.findall(message)
    if errors:
        return str(errors[-1]).strip()[:MAX_REASON_CHARS]
    first = next((line.strip() for line in message.splitlines() if line.strip()), "no reason given")
    return first[:MAX_REASON_CHARS]


def _running(deployment: Any) -> int:
    return sum(count for state, count in deployment.replica_states.items() if _value(state) == "RUNNING")


def _value(state: Any) -> str:
    return str(getattr(state, "value", state))
