"""What one user sees of their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FAVOURITES = 5
RECENT = 10
_TOTALS = (
    "runs",
    "by_status",
    "success_rate",
    "latency_s",
    "tokens",
    "cost_usd",
    "tool_calls",
    "satisfaction",
)
_RECENT_FIELDS = (
    "run_id",
    "status",
    "flow",
    "prompt",
    "answer",
    "conversation_id",
    "created_at",
    "finished_at",
    "error",
)


def user_dashboard(
    user: str, statistics: Mapping[str, Any], recent: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The user's document, of the statistics of their runs and their newest runs (RunStore.list).

    ``{user, since, until, step_s, totals, favourite_flows, models, recent, trend}``: docs/statistics.md.
    Favourite flows are the most used ones, the better rated before on a tie.
    """
    return {
        "user": user,
        "since": statistics["since"],
        "until": statistics["until"],
        "step_s": statistics["step_s"],
        "totals": {name: statistics["totals"][name] for name in _TOTALS},
        "favourite_flows": _favourites(statistics["by_flow"]),
        "models": [
            {"model": name, "calls": figures["calls"], "cost_usd": figures["cost_usd"]}
            for name, figures in statistics["by_model"].items()
        ],
        "recent": [{name: run.get(name) for name in _RECENT_FIELDS} for run in recent[:RECENT]],
        "trend": list(statistics["trend"]),
    }


def _favourites(by_flow: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    def rank(name: str) -> tuple[float, float, str]:
        figures = by_flow[name]
        return (-figures["runs"], -(figures["satisfaction"]["avg"] or 0.0), name)

    return [
        {
            "flow": name,
            "runs": by_flow[name]["runs"],
            "success_rate": by_flow[name]["success_rate"],
            "satisfaction": by_flow[name]["satisfaction"],
        }
        for name in sorted(by_flow, key=rank)[:FAVOURITES]
    ]
