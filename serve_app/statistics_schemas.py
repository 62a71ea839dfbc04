"""Answers of /api/stats: figures of a window, a user's dashboard, the system's health."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from registries.contracts.runs import ErrorFact, RunStatus


class Spread(BaseModel):
    """Seconds; ``p50`` and ``p95`` by nearest rank. None where ``count`` is 0."""

    count: int
    avg: float | None
    min: float | None
    max: float | None
    p50: float | None
    p95: float | None


class Tokens(BaseModel):
    """In, out, and both."""

    prompt: int
    completion: int
    total: int


class Satisfaction(BaseModel):
    """Ratings by users, 0 to 1; ``avg`` is None without any."""

    avg: float | None
    count: int


class Figures(BaseModel):
    """What runs and calls have in common. ``errors`` maps a code to how often it was the end."""

    by_status: dict[str, int]
    success_rate: float | None = Field(description="completed among completed and failed")
    latency_s: Spread
    tokens: Tokens
    cost_usd: float
    tool_calls: int
    errors: dict[str, int]
    cache_hits: int
    satisfaction: Satisfaction


class RunFigures(Figures):
    """Figures of runs; latency is from creation to the end, of completed and failed ones."""

    runs: int


class CallFigures(Figures):
    """Figures of model calls; latency is each call's own."""

    calls: int


class TrendPoint(BaseModel):
    """One hour or day (see ``step_s``), from ``start`` on; runs by when they were created."""

    start: float
    runs: int
    completed: int
    failed: int
    success_rate: float | None
    tokens: Tokens
    cost_usd: float
    satisfaction: Satisfaction


class StatisticsAnswer(BaseModel):
    """GET /api/stats: runs created in [since, until), seconds since the epoch."""

    since: float
    until: float
    step_s: float
    totals: RunFigures
    by_flow: dict[str, RunFigures]
    by_user: dict[str, RunFigures]
    by_model: dict[str, CallFigures]
    by_provider: dict[str, CallFigures]
    trend: list[TrendPoint]


class UserTotals(BaseModel):
    """A user's own figures."""

    runs: int
    by_status: dict[str, int]
    success_rate: float | None
    latency_s: Spread
    tokens: Tokens
    cost_usd: float
    tool_calls: int
    satisfaction: Satisfaction


class FavouriteFlow(BaseModel):
    """A flow that the user runs often."""

    flow: str
    runs: int
    success_rate: float | None
    satisfaction: Satisfaction


class UsedModel(BaseModel):
    """A model that answered the user's runs."""

    model: str
    calls: int
    cost_usd: float


class RecentRun(BaseModel):
    """One of the user's newest runs in the window; texts cut to 200 characters."""

    run_id: str
    status: RunStatus
    flow: str
    prompt: str
    answer: str
    conversation_id: str | None
    created_at: float
    finished_at: float | None
    error: ErrorFact | None


class UserDashboard(BaseModel):
    """GET /api/stats/users/{user}."""

    user: str
    since: float
    until: float
    step_s: float
    totals: UserTotals
    favourite_flows: list[FavouriteFlow]
    models: list[UsedModel]
    recent: list[RecentRun]
    trend: list[TrendPoint]


class HealthPartAnswer(BaseModel):
    """One part of the score. ``weight`` is its share of what could be judged; all add up to 1."""

    score: float = Field(ge=0, le=1)
    weight: float
    value: Any
    why: str


class HealthScoreAnswer(BaseModel):
    """GET /api/stats/health: 1 is well, 0 is down."""

    score: float = Field(ge=0, le=1)
    parts: dict[str, HealthPartAnswer]
