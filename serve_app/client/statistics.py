"""Figures of runs and model calls, as the runtime tells them; docs/statistics.md says what each means."""

from __future__ import annotations

from pydantic import Field

from registries.contracts.runs import ErrorFact
from serve_app.client.answers import TolerantAnswer


class Spread(TolerantAnswer):
    """Seconds; ``p50`` and ``p95`` by nearest rank. None where ``count`` is 0."""

    count: int = 0
    avg: float | None = None
    min: float | None = None
    max: float | None = None
    p50: float | None = None
    p95: float | None = None


class Tokens(TolerantAnswer):
    """In, out, and both."""

    prompt: int = 0
    completion: int = 0
    total: int = 0


class Satisfaction(TolerantAnswer):
    """Ratings by users, 0 to 1; ``avg`` is None without any."""

    avg: float | None = None
    count: int = 0


class Totals(TolerantAnswer):
    """What all figures have; ``success_rate`` is None where nothing completed or failed."""

    by_status: dict[str, int] = Field(default_factory=dict)
    success_rate: float | None = None
    latency_s: Spread = Spread()
    tokens: Tokens = Tokens()
    cost_usd: float = 0.0
    tool_calls: int = 0
    satisfaction: Satisfaction = Satisfaction()


class Figures(Totals):
    """``errors`` maps a code to how often it was the end."""

    errors: dict[str, int] = Field(default_factory=dict)
    cache_hits: int = 0


class RunFigures(Figures):
    """Figures of runs; latency is from creation to the end, of completed and failed ones."""

    runs: int = 0


class CallFigures(Figures):
    """Figures of model calls; latency is each call's own."""

    calls: int = 0


class TrendPoint(TolerantAnswer):
    """One step (see ``step_s``) from ``start`` on; runs by when they were created."""

    start: float
    runs: int = 0
    completed: int = 0
    failed: int = 0
    success_rate: float | None = None
    tokens: Tokens = Tokens()
    cost_usd: float = 0.0
    satisfaction: Satisfaction = Satisfaction()


class _Window(TolerantAnswer):
    """[since, until) in seconds since the epoch, and how long a step of ``trend`` is."""

    since: float
    until: float
    step_s: float
    trend: tuple[TrendPoint, ...] = ()


class Statistics(_Window):
    """GET /api/stats: figures of the runs created in the window."""

    totals: RunFigures
    by_flow: dict[str, RunFigures] = Field(default_factory=dict)
    by_user: dict[str, RunFigures] = Field(default_factory=dict)
    by_model: dict[str, CallFigures] = Field(default_factory=dict)
    by_provider: dict[str, CallFigures] = Field(default_factory=dict)


class UserTotals(Totals):
    """A user's own figures."""

    runs: int = 0


class FavouriteFlow(TolerantAnswer):
    """A flow that the user runs often."""

    flow: str
    runs: int = 0
    success_rate: float | None = None
    satisfaction: Satisfaction = Satisfaction()


class UsedModel(TolerantAnswer):
    """A model that answered the user's runs."""

    model: str
    calls: int = 0
    cost_usd: float = 0.0


class RecentRun(TolerantAnswer):
    """One of the user's newest runs in the window; texts cut to 200 characters."""

    run_id: str
    status: str
    flow: str = ""
    prompt: str = ""
    answer: str | None = None
    conversation_id: str | None = None
    created_at: float | None = None
    finished_at: float | None = None
    error: ErrorFact | None = None


class Dashboard(_Window):
    """GET /api/stats/users/{user}."""

    user: str
    totals: UserTotals
    favourite_flows: tuple[FavouriteFlow, ...] = ()
    models: tuple[UsedModel, ...] = ()
    recent: tuple[RecentRun, ...] = ()
