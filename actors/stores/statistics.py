"""Figures of a window of time: what ran, how it ended, how long it took, what it cost.

The window is read step by step, each step's runs and then their usage rows, so that memory holds one step and
one float a run and a call. Ranks are taken here and not in SQL: the databases would each sort in their own
way, and several times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from actors.stores.database import Transaction
from actors.stores.tally import Tally, merged
from registries.contracts.runs import NodeStatus, RunStatus

UNKNOWN = "unknown"
"""The model, or provider, of a call whose row names none."""
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
_STEPS_S = ((49 * HOUR_S, HOUR_S), (400 * DAY_S, DAY_S))
"""Up to this window, a step of this length; above them 30 days."""
_LONGEST_STEP_S = 30 * DAY_S
_RUN_STATUSES: tuple[str, ...] = get_args(RunStatus)
_CALL_STATUSES: tuple[str, ...] = get_args(NodeStatus)
_TIMED = frozenset({"completed", "failed"})

# All columns of runs that are read here are in the index runs_by_time: a run's row holds its whole request
# and result, and would be read past those. CROSS JOIN keeps SQLite on that index.
_WINDOW = "r.tenant = ? AND r.created_at >= ? AND r.created_at < ?"
_RUNS = """
    SELECT r.user_name, r.flow, r.status, r.error_code, r.created_at, r.finished_at
    FROM runs r WHERE {window}
"""
_SPENT = """
    SELECT r.user_name, r.flow,
        CAST(SUM(u.prompt_tokens) AS BIGINT), CAST(SUM(u.completion_tokens) AS BIGINT),
        CAST(SUM(u.cost_micro_usd) AS BIGINT), CAST(SUM(u.cache_hit) AS BIGINT)
    FROM runs r CROSS JOIN usage u WHERE {window} AND u.run_id = r.run_id GROUP BY r.user_name, r.flow
"""
_CALLS = """
    SELECT u.model, u.provider, u.status, u.error_code, u.duration_s,
        u.prompt_tokens, u.completion_tokens, u.cost_micro_usd, u.cache_hit
    FROM runs r CROSS JOIN usage u WHERE {window} AND u.run_id = r.run_id AND {called}
"""
_RATINGS = """
    SELECT r.user_name, r.flow, f.rating
    FROM runs r CROSS JOIN feedback f WHERE {window} AND f.run_id = r.run_id
"""
_RATED_CALLS = """
    SELECT DISTINCT u.model, u.provider, f.run_id, f.user_name, f.rating
    FROM runs r CROSS JOIN feedback f CROSS JOIN usage u
    WHERE {window} AND f.run_id = r.run_id AND u.run_id = r.run_id AND {called}
"""
_CALLED = "(u.model IS NOT NULL OR u.provider IS NOT NULL)"
"""The other nodes asked no model: votes, checks, joins."""
Read = Callable[[str, float, float], Sequence[Sequence[Any]]]
Tallies = defaultdict[tuple[str, str], Tally]
Ratings = defaultdict[str, Tally]
"""By name. Apart from the calls': a run's rating counts once for a model, at however many providers."""


def statistics(
    tx: Transaction, since: float, until: float, tenant: str, user: str | None = None
) -> dict[str, Any]:
    """Figures of the tenant's (or one user's) runs created in [since, until), seconds since the epoch.

    ``{since, until, step_s, totals, by_flow, by_user, by_model, by_provider, trend}``: docs/statistics.md.
    Latency is from creation to the end, of completed and failed runs; that of a model is its calls' own.
    """

    def read(sql: str, start: float, end: float) -> Sequence[Sequence[Any]]:
        window, parameters = _WINDOW, [tenant, start, end]
        if user is not None:
            window, parameters = f"{_WINDOW} AND r.user_name = ?", [*parameters, user]
        return tx.execute(sql.format(window=window, called=_CALLED), parameters).fetchall()

    runs: Tallies = defaultdict(Tally)
    calls: Tallies = defaultdict(Tally)
    models: Ratings = defaultdict(Tally)
    providers: Ratings = defaultdict(Tally)
    step_s = _step_s(until - since)
    trend = []
    for start, end in _steps(since, until, step_s):
        step = _tally_runs(read, start, end, runs)
        _tally_calls(read, start, end, calls)
        if step.rating_count > 0:
            _tally_ratings(read, start, end, models, providers)
        trend.append(_trend_point(start, step))
    by_flow, by_user = _by(runs, lambda key: key[1]), _by(runs, lambda key: key[0])
    by_model, by_provider = _by(calls, lambda key: key[0], models), _by(calls, lambda key: key[1], providers)
    return {
        "since": since,
        "until": until,
        "step_s": step_s,
        "totals": merged(by_flow.values()).figures("runs", _RUN_STATUSES),
        "by_flow": _figures(by_flow, "runs", _RUN_STATUSES),
        "by_user": _figures(by_user, "runs", _RUN_STATUSES),
        "by_model": _figures(by_model, "calls", _CALL_STATUSES),
        "by_provider": _figures(by_provider, "calls", _CALL_STATUSES),
        "trend": trend,
    }


def _step_s(window_s: float) -> float:
    return next((step_s for longest_s, step_s in _STEPS_S if window_s <= longest_s), _LONGEST_STEP_S)


def _steps(since: float, until: float, step_s: float) -> Iterator[tuple[float, float]]:
    """Whole hours or days of UTC; the first and the last may be cut."""
    start = since
    while start < until:
        end = min(until, (start // step_s + 1) * step_s)
        yield start, end
        start = end


def _tally_runs(read: Read, start: float, end: float, runs: Tallies) -> Tally:
    """Add a step's runs to ``runs`` (by user and flow); the step's own sums."""
    whole = Tally()
    for user, flow, status, error, created, finished in read(_RUNS, start, end):
        timed = finished is not None and status in _TIMED
        runs[user, flow].add(status, error, 1, (max(0.0, finished - created),) if timed else ())
        whole.statuses[status] += 1
        whole.count += 1
    for user, flow, *spent in read(_SPENT, start, end):
        runs[user, flow].spend(*spent)
        whole.spend(*spent)
    for user, flow, rating in read(_RATINGS, start, end):
        runs[user, flow].rate(rating)
        whole.rate(rating)
    return whole


def _tally_calls(read: Read, start: float, end: float, calls: Tallies) -> None:
    """Add a step's model calls to ``calls`` (by model and provider).

    What is alike comes together first: its sums are then taken column by column, without Python's own loop.
    """
    alike: dict[Sequence[Any], list[Sequence[Any]]] = defaultdict(list)
    for row in read(_CALLS, start, end):
        alike[row[0], row[1], row[2], row[3]].append(row)
    for (model, provider, status, error), rows in alike.items():
        _, _, _, _, durations, *spent = zip(*rows, strict=True)
        tally = calls[model or UNKNOWN, provider or UNKNOWN]
        tally.add(status, error, len(rows), durations)
        tally.spend(*map(sum, spent))


def _tally_ratings(read: Read, start: float, end: float, models: Ratings, providers: Ratings) -> None:
    """Add the ratings of a step's runs to every model and provider that took part in them, once each."""
    rated: set[tuple[int, str, str, str]] = set()
    for model, provider, run_id, user, rating in read(_RATED_CALLS, start, end):
        for part, (name, tallies) in enumerate(((model, models), (provider, providers))):
            one = (part, name or UNKNOWN, run_id, user)
            if one not in rated:
                rated.add(one)
                tallies[name or UNKNOWN].rate(rating)


def _by(
    tallies: Tallies, name_of: Callable[[tuple[str, str]], str], ratings: Mapping[str, Tally] | None = None
) -> dict[str, Tally]:
    """Added up by one half of the key, the most used first."""
    parts: dict[str, list[Tally]] = defaultdict(list)
    for key, tally in tallies.items():
        tally.latencies.sort()
        parts[name_of(key)].append(tally)
    for name, tally in (ratings or {}).items():
        parts[name].append(tally)
    wholes = {name: merged(some) for name, some in parts.items()}
    return dict(sorted(wholes.items(), key=lambda item: (-item[1].count, item[0])))


def _figures(tallies: dict[str, Tally], counted: str, statuses: Sequence[str]) -> dict[str, Any]:
    return {name: tally.figures(counted, statuses) for name, tally in tallies.items()}


def _trend_point(start: float, step: Tally) -> dict[str, Any]:
    figures = step.figures("runs", _RUN_STATUSES)
    names = ("runs", "success_rate", "tokens", "cost_usd", "satisfaction")
    return {
        "start": start,
        **{name: figures[name] for name in names},
        "completed": step.statuses["completed"],
        "failed": step.statuses["failed"],
    }
