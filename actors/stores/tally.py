"""Sums over runs or model calls, and the figures they come out as."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_MICRO = 1_000_000


@dataclass(slots=True)
class Tally:
    """What is added up. ``latencies`` (seconds) are kept singly, because ranks need them all."""

    count: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micro_usd: int = 0
    cache_hits: int = 0
    rating_sum: float = 0.0
    rating_count: int = 0

    def add(self, status: str, error: str | None, count: int, latencies: Iterable[float] = ()) -> None:
        """``count`` of them that ended alike."""
        self.count += count
        self.statuses[status] += count
        if error is not None:
            self.errors[error] += count
        self.latencies.extend(latencies)

    def spend(self, prompt_tokens: int, completion_tokens: int, cost_micro_usd: int, cache_hits: int) -> None:
        """What they used."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.cost_micro_usd += cost_micro_usd
        self.cache_hits += cache_hits

    def rate(self, rating: float) -> None:
        """A user's rating."""
        self.rating_sum += rating
        self.rating_count += 1

    def merge(self, other: Tally) -> None:
        """Add another's sums to these."""
        self.count += other.count
        self.statuses.update(other.statuses)
        self.errors.update(other.errors)
        self.latencies += other.latencies
        self.spend(other.prompt_tokens, other.completion_tokens, other.cost_micro_usd, other.cache_hits)
        self.rating_sum += other.rating_sum
        self.rating_count += other.rating_count

    @property
    def cost_usd(self) -> float:
        """US dollars."""
        return self.cost_micro_usd / _MICRO

    @property
    def tokens(self) -> dict[str, int]:
        """In, out, and both."""
        total = self.prompt_tokens + self.completion_tokens
        return {"prompt": self.prompt_tokens, "completion": self.completion_tokens, "total": total}

    def figures(self, counted: str, statuses: Sequence[str]) -> dict[str, Any]:
        """As JSON values; ``counted`` names what was counted (runs, calls)."""
        ratings = self.rating_count
        return {
            counted: self.count,
            "by_status": {status: self.statuses[status] for status in statuses},
            "success_rate": success_rate(self.statuses),
            "latency_s": spread(self.latencies),
            "tokens": self.tokens,
            "cost_usd": self.cost_usd,
            # No node calls a tool yet; the field is there so that readers need no second version.
            "tool_calls": 0,
            "errors": dict(self.errors.most_common()),
            "cache_hits": self.cache_hits,
            "satisfaction": {"avg": self.rating_sum / ratings if ratings else None, "count": ratings},
        }


def merged(tallies: Iterable[Tally]) -> Tally:
    """One tally of all, its latencies sorted.

    Tallies that are sorted already are sorted together in a fraction of the time: lists of lists pay once.
    """
    whole = Tally()
    for tally in tallies:
        whole.merge(tally)
    whole.latencies.sort()
    return whole


def success_rate(statuses: Mapping[str, int]) -> float | None:
    """Completed among completed and failed; None when there are neither.

    Cancelled and skipped ones are on neither side: somebody wanted them so.
    """
    ended = statuses.get("completed", 0) + statuses.get("failed", 0)
    return statuses.get("completed", 0) / ended if ended else None


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Count, avg, min, max, p50 and p95; None where there is nothing."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0, **dict.fromkeys(("avg", "min", "max", "p50", "p95"))}
    return {
        "count": len(ordered),
        "avg": math.fsum(ordered) / len(ordered),
        "min": ordered[0],
        "max": ordered[-1],
        "p50": nearest_rank(ordered, 50),
        "p95": nearest_rank(ordered, 95),
    }


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """The smallest of the values (sorted, at least one) that at least ``percent`` of them do not exceed.

    The nearest-rank definition, without interpolation: always a value that was measured, and the same
    whatever database it came from. ``percent`` is whole, 1 to 100, so that the rank is exact.
    """
    return ordered[-(-len(ordered) * percent // 100) - 1]
