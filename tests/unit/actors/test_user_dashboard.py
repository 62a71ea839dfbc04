from __future__ import annotations

from typing import Any

from actors.stores.tally import Tally
from actors.user_dashboard import FAVOURITES, RECENT, user_dashboard


def figures(count: int, rating: float | None = None) -> dict[str, Any]:
    tally = Tally()
    tally.add("completed", None, count, [1.0] * count)
    if rating is not None:
        tally.rate(rating)
    return tally.figures("runs", ("completed", "failed"))


def document(
    by_flow: dict[str, dict[str, Any]], recent: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    statistics = {
        "since": 0.0,
        "until": 7200.0,
        "step_s": 3600.0,
        "totals": figures(3, 0.5),
        "by_flow": by_flow,
        "by_user": {"ann": figures(3)},
        "by_model": {"m": {**figures(2), "calls": 2}},
        "by_provider": {},
        "trend": [{"start": 0.0, "runs": 3}],
    }
    return user_dashboard("ann", statistics, recent or [])


def test_the_document_holds_the_users_figures() -> None:
    shown = document({"f": figures(3, 0.5)})
    assert (shown["user"], shown["since"], shown["until"], shown["step_s"]) == ("ann", 0.0, 7200.0, 3600.0)
    assert shown["totals"]["runs"] == 3 and shown["totals"]["satisfaction"] == {"avg": 0.5, "count": 1}
    assert shown["models"] == [{"model": "m", "calls": 2, "cost_usd": 0.0}]
    assert shown["trend"] == [{"start": 0.0, "runs": 3}]


def test_favourites_are_the_most_used_then_the_best_rated() -> None:
    shown = document({"a": figures(2), "b": figures(2, 0.9), "c": figures(5, 0.1)})
    assert [flow["flow"] for flow in shown["favourite_flows"]] == ["c", "b", "a"]
    assert shown["favourite_flows"][1] == {
        "flow": "b",
        "runs": 2,
        "success_rate": 1.0,
        "satisfaction": {"avg": 0.9, "count": 1},
    }
    many = {f"f{number}": figures(number + 1) for number in range(FAVOURITES + 3)}
    assert [flow["flow"] for flow in document(many)["favourite_flows"]] == ["f7", "f6", "f5", "f4", "f3"]


def test_recent_runs_are_few_and_short() -> None:
    runs = [
        {"run_id": f"r{number}", "status": "completed", "flow": "f", "result": {"huge": 1}, "request": {}}
        for number in range(RECENT + 5)
    ]
    shown = document({}, runs)["recent"]
    assert [run["run_id"] for run in shown] == [f"r{number}" for number in range(RECENT)]
    assert all("result" not in run and "request" not in run and run["prompt"] is None for run in shown)
