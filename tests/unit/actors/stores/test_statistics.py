from __future__ import annotations

from typing import Any

import pytest

from actors.stores.run_queries import add_feedback
from actors.stores.statistics import DAY_S, HOUR_S, UNKNOWN, statistics
from registries.contracts.runs import Feedback
from tests.unit.actors.stores.plain_transaction import PlainTransaction, put_run


@pytest.fixture
def tx() -> PlainTransaction:
    return PlainTransaction()


def put_call(
    tx: PlainTransaction, run_id: str, node: str, model: str | None, provider: str | None, **values: Any
) -> None:
    row = {
        "run_id": run_id, "node": node, "visit": 1, "status": "completed", "model": model,
        "provider": provider, "prompt_tokens": 10, "completion_tokens": 5, "cost_micro_usd": 250_000,
        "duration_s": 1.0, "cache_hit": 0,
        "error_code": None, **values,
    }  # fmt: skip
    sql = f"INSERT INTO usage ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
    tx.execute(sql, list(row.values()))


@pytest.fixture
def filled(tx: PlainTransaction) -> PlainTransaction:
    put_run(tx, "r1", flow="f", user_name="ann", created_at=100.0, finished_at=102.0)
    put_run(
        tx,
        "r2",
        flow="f",
        user_name="eve",
        created_at=200.0,
        finished_at=206.0,
        status="failed",
        error_code="capacity",
    )
    put_run(tx, "r3", flow="g", user_name="ann", created_at=300.0, finished_at=301.0)
    put_run(
        tx,
        "r4",
        flow="g",
        user_name="ann",
        created_at=4000.0,
        finished_at=4999.0,
        status="cancelled",
        error_code="cancelled",
    )
    put_run(tx, "r5", flow="g", user_name="ann", created_at=4001.0, status="running")
    put_run(tx, "r6", tenant="other", created_at=150.0, finished_at=151.0)
    put_call(tx, "r1", "a", "big", "cloud", duration_s=2.0, cache_hit=1)
    put_call(tx, "r1", "b", "small", "local")
    put_call(tx, "r1", "vote", None, None, cost_micro_usd=0, prompt_tokens=0, completion_tokens=0)
    put_call(tx, "r2", "a", "big", "cloud", status="failed", error_code="capacity", duration_s=4.0)
    put_call(tx, "r2", "b", None, "cloud", status="failed", error_code="provider_error")
    put_call(tx, "r3", "a", "big", None)
    put_call(tx, "r6", "a", "secret", "cloud")
    add_feedback(tx, "r1", "default", "ann", Feedback(rating=1.0))
    add_feedback(tx, "r1", "default", "eve", Feedback(rating=0.5))
    add_feedback(tx, "r3", "default", "ann", Feedback(rating=0.0))
    return tx


def test_the_whole_window(filled: PlainTransaction) -> None:
    totals = statistics(filled, 0.0, 5000.0, "default")["totals"]
    assert totals == {
        "runs": 5,
        "by_status": {"queued": 0, "running": 1, "waiting": 0, "completed": 2, "failed": 1, "cancelled": 1},
        "success_rate": 2 / 3,
        "latency_s": {"count": 3, "avg": 3.0, "min": 1.0, "max": 6.0, "p50": 2.0, "p95": 6.0},
        "tokens": {"prompt": 50, "completion": 25, "total": 75},
        "cost_usd": 1.25,
        "tool_calls": 0,
        "errors": {"capacity": 1, "cancelled": 1},
        "cache_hits": 1,
        "satisfaction": {"avg": 0.5, "count": 3},
    }


def test_by_flow_and_by_user(filled: PlainTransaction) -> None:
    figures = statistics(filled, 0.0, 5000.0, "default")
    assert {name: f["runs"] for name, f in figures["by_flow"].items()} == {"g": 3, "f": 2}
    assert figures["by_flow"]["f"]["success_rate"] == 0.5
    assert figures["by_flow"]["g"]["satisfaction"] == {"avg": 0.0, "count": 1}
    assert {name: f["runs"] for name, f in figures["by_user"].items()} == {"ann": 4, "eve": 1}
    assert figures["by_user"]["eve"]["latency_s"]["max"] == 6.0
    assert figures["by_user"]["ann"]["tokens"]["total"] == 45
    assert figures["by_user"]["ann"]["satisfaction"] == {"avg": 0.5, "count": 3}


def test_by_model_and_provider_count_calls(filled: PlainTransaction) -> None:
    figures = statistics(filled, 0.0, 5000.0, "default")
    big = figures["by_model"]["big"]
    assert list(figures["by_model"]) == ["big", "small", UNKNOWN]
    assert (big["calls"], big["by_status"]) == (3, {"completed": 2, "failed": 1, "skipped": 0})
    assert big["latency_s"] == {"count": 3, "avg": 7 / 3, "min": 1.0, "max": 4.0, "p50": 2.0, "p95": 4.0}
    assert big["errors"] == {"capacity": 1} and big["cache_hits"] == 1 and big["cost_usd"] == 0.75
    assert big["satisfaction"] == {"avg": 0.5, "count": 3}
    assert figures["by_model"]["small"]["satisfaction"] == {"avg": 0.75, "count": 2}
    assert {name: f["calls"] for name, f in figures["by_provider"].items()} == {
        "cloud": 3,
        "local": 1,
        UNKNOWN: 1,
    }
    assert figures["by_provider"]["cloud"]["errors"] == {"capacity": 1, "provider_error": 1}


def test_a_rating_counts_once_for_each_model_and_provider_of_its_run(tx: PlainTransaction) -> None:
    for run_id, rating in (("r1", 0.0), ("r2", 1.0)):
        put_run(tx, run_id, flow="f", user_name="ann", created_at=100.0, finished_at=102.0)
        put_call(tx, run_id, "a", "big", "local")
        add_feedback(tx, run_id, "default", "ann", Feedback(rating=rating))
    put_call(tx, "r2", "b", "small", "local")
    put_call(tx, "r2", "c", "tiny", "local")
    put_call(tx, "r2", "d", "big", "cloud")
    figures = statistics(tx, 0.0, 5000.0, "default")
    assert figures["by_provider"]["local"]["satisfaction"] == {"avg": 0.5, "count": 2}
    assert figures["by_provider"]["cloud"]["satisfaction"] == {"avg": 1.0, "count": 1}
    assert figures["by_model"]["big"]["satisfaction"] == {"avg": 0.5, "count": 2}


def test_the_window_is_half_open(filled: PlainTransaction) -> None:
    assert statistics(filled, 100.0, 300.0, "default")["totals"]["runs"] == 2
    assert statistics(filled, 300.0, 300.0, "default")["totals"]["runs"] == 0


def test_one_user_and_another_tenant(filled: PlainTransaction) -> None:
    eve = statistics(filled, 0.0, 5000.0, "default", "eve")
    assert eve["totals"]["runs"] == 1 and list(eve["by_user"]) == ["eve"] and list(eve["by_flow"]) == ["f"]
    assert sum(f["calls"] for f in eve["by_model"].values()) == 2
    assert statistics(filled, 0.0, 5000.0, "other")["totals"]["runs"] == 1
    assert statistics(filled, 0.0, 5000.0, "nobody")["by_model"] == {}


def test_the_trend_adds_up_and_has_its_empty_steps(filled: PlainTransaction) -> None:
    figures = statistics(filled, 50.0, 3 * HOUR_S, "default")
    trend = figures["trend"]
    assert figures["step_s"] == HOUR_S
    assert [point["start"] for point in trend] == [50.0, HOUR_S, 2 * HOUR_S]
    assert [point["runs"] for point in trend] == [3, 2, 0]
    assert [point["completed"] for point in trend] == [2, 0, 0]
    assert trend[0]["failed"] == 1 and trend[0]["tokens"]["total"] == 75 and trend[0]["cost_usd"] == 1.25
    assert trend[0]["satisfaction"]["count"] == 3 and trend[2]["success_rate"] is None


def test_long_windows_have_longer_steps(tx: PlainTransaction) -> None:
    assert len(statistics(tx, 0.0, 48 * HOUR_S, "default")["trend"]) == 48
    week = statistics(tx, 0.0, 7 * DAY_S, "default")
    assert week["step_s"] == DAY_S and len(week["trend"]) == 7
    assert len(statistics(tx, 0.0, 1.8e9, "default")["trend"]) < 1000


def test_a_run_is_read_from_the_index_alone(tx: PlainTransaction) -> None:
    plans: list[str] = []

    class Explained:
        def execute(self, sql: str, parameters: object = ()) -> object:
            cursor = tx.connection.execute(f"EXPLAIN QUERY PLAN {sql}", list(parameters))  # type: ignore[call-overload]
            plans.extend(row[3] for row in cursor.fetchall())
            return tx.connection.execute("SELECT 1 WHERE 0")

        def executemany(self, sql: str, rows: object) -> None: ...

    statistics(Explained(), 0.0, 10.0, "default", "ann")  # type: ignore[arg-type]
    of_runs = [plan for plan in plans if plan.split()[1] == "r"]
    assert len(of_runs) == 4
    assert all("USING COVERING INDEX runs_by_time (tenant=? AND created_at>?" in plan for plan in of_runs)
    assert not any(plan.startswith("SCAN") for plan in plans)
