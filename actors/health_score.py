"""How well the whole system is: one number with the parts that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

WEIGHTS: Mapping[str, float] = {
    "success": 0.30,
    "store": 0.20,
    "replicas": 0.20,
    "latency": 0.10,
    "queue": 0.10,
    "breakers": 0.10,
}
"""Our own choice; they add up to 1. Success counts most, being what users get. Without its store the runtime
accepts nothing and without replicas it runs nothing: a fifth each. Slowness, a queue and an open breaker are
signs of trouble that a run can still get through, by waiting or on another model: a tenth each.
"""
CALM_SHARE = 0.5
"""Up to this share of its bound a delay takes nothing off: as much time again is still in hand."""
_WEIGHT_DIGITS = 9
"""Of a weight that is shown: enough to add up to 1, few enough to hide how binary fractions are divided."""
_HALF_OPEN = 0.5
"""A breaker that lets one probe through is neither shut off nor well."""


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """What was found; None for what could not be learnt (or has not happened), which then does not count.

    ``deadline_s`` is a run's usual deadline, the bound of latency and of a queue's age in seconds.
    ``breakers`` counts all that are known, ``ready_parts`` those of ``parts`` that have a replica running.
    """

    deadline_s: float
    queue_limit: int = 0
    success_rate: float | None = None
    ended: int = 0
    latency_p95_s: float | None = None
    queued: int | None = None
    oldest_queued_s: float = 0.0
    breakers: int | None = None
    breakers_open: int = 0
    breakers_half_open: int = 0
    parts: int | None = None
    ready_parts: int = 0
    store_reachable: bool | None = None


@dataclass(frozen=True, slots=True)
class HealthPart:
    """One side of the system: ``score`` 0 to 1, the ``value`` it comes from, and why in words."""

    score: float
    value: Any
    why: str


def health_document(facts: HealthFacts) -> dict[str, Any]:
    """``{score, parts: {name: {score, weight, value, why}}}``.

    The score is the mean of the parts, by weights that are scaled so that those of the parts found add up to
    1. With no part at all it is 0: nothing is known to be well.
    """
    found = {name: judged for name, judge in _JUDGES.items() if (judged := judge(facts)) is not None}
    total = sum(WEIGHTS[name] for name in found)
    parts = {
        name: {
            "score": part.score,
            "weight": round(WEIGHTS[name] / total, _WEIGHT_DIGITS),
            "value": part.value,
            "why": part.why,
        }
        for name, part in found.items()
    }
    score = sum(WEIGHTS[name] * part.score for name, part in found.items()) / total if found else 0.0
    return {"score": min(1.0, max(0.0, score)), "parts": parts}


def _success(facts: HealthFacts) -> HealthPart | None:
    if facts.success_rate is None:
        return None
    why = f"{facts.success_rate:.1%} of {facts.ended} ended runs completed"
    return HealthPart(_bounded(facts.success_rate), facts.success_rate, why)


def _latency(facts: HealthFacts) -> HealthPart | None:
    p95_s = facts.latency_p95_s
    if p95_s is None:
        return None
    why = f"95 % of the runs took at most {p95_s:.1f} s; the usual deadline is {facts.deadline_s:.0f} s"
    return HealthPart(_calm(p95_s, facts.deadline_s), p95_s, why)


def _queue(facts: HealthFacts) -> HealthPart | None:
    """The worse of age and depth: a short queue that stands still is as bad as a full one that moves."""
    if facts.queued is None:
        return None
    score = _calm(facts.oldest_queued_s, facts.deadline_s)
    limit = "without a limit"
    if facts.queue_limit:
        score = min(score, _calm(facts.queued, facts.queue_limit))
        limit = f"of at most {facts.queue_limit}"
    value = {"queued": facts.queued, "oldest_queued_s": facts.oldest_queued_s}
    why = f"{facts.queued} runs queued {limit}, the oldest for {facts.oldest_queued_s:.1f} s"
    return HealthPart(score, value, why)


def _breakers(facts: HealthFacts) -> HealthPart | None:
    if facts.breakers is None:
        return None
    shut = facts.breakers_open + _HALF_OPEN * facts.breakers_half_open
    value = {"all": facts.breakers, "open": facts.breakers_open, "half_open": facts.breakers_half_open}
    why = f"{facts.breakers_open} open and {facts.breakers_half_open} half open of {facts.breakers} breakers"
    return HealthPart(_bounded(1 - shut / facts.breakers) if facts.breakers else 1.0, value, why)


def _replicas(facts: HealthFacts) -> HealthPart | None:
    if not facts.parts:
        return None
    why = f"{facts.ready_parts} of {facts.parts} parts are ready"
    value = {"ready": facts.ready_parts, "all": facts.parts}
    return HealthPart(_bounded(facts.ready_parts / facts.parts), value, why)


def _store(facts: HealthFacts) -> HealthPart | None:
    reachable = facts.store_reachable
    if reachable is None:
        return None
    why = "the database answers" if reachable else "the database does not answer: no run is accepted"
    return HealthPart(1.0 if reachable else 0.0, reachable, why)


_JUDGES: Mapping[str, Callable[[HealthFacts], HealthPart | None]] = {
    "success": _success,
    "store": _store,
    "replicas": _replicas,
    "latency": _latency,
    "queue": _queue,
    "breakers": _breakers,
}


def _calm(value: float, bound: float) -> float:
    """1 up to CALM_SHARE of the bound, then in a straight line down to 0 at the bound."""
    return _bounded((bound - value) / (bound * (1 - CALM_SHARE)))


def _bounded(score: float) -> float:
    return min(1.0, max(0.0, score))
