"""GET /api/stats and what is below it: figures of a window, a user's dashboard, the system's health."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import QueryParams

from actors.stores.records import RunFilter
from actors.user_dashboard import RECENT, user_dashboard
from registries.contracts.errors import ValidationError
from serve_app.caller import caller_of
from serve_app.openapi import error_answers, query_of
from serve_app.query import check_known, one_value
from serve_app.services import Services
from serve_app.statistics_schemas import HealthScoreAnswer, StatisticsAnswer, UserDashboard
from serve_app.system_health import system_health

MAX_HOURS = 366 * 24.0
"""A leap year: runs are rarely kept longer, and a longer window reads more than one answer should."""
DAY_HOURS = 24.0
NOW_HOURS = 1.0
_HOUR_S = 3600.0
_HOURS = {"hours": f"the window up to now; more than 0, at most {MAX_HOURS:.0f}; default {DAY_HOURS:.0f}"}
_NOW = {"hours": f"the window whose runs count; default {NOW_HOURS:.0f}"}
_USER = {"user": "figures of this user's runs alone"}


def statistics_routes(services: Services) -> APIRouter:
    """Documents of the caller's tenant; see docs/statistics.md."""
    router = APIRouter(tags=["statistics"])

    @router.get(
        "/api/stats",
        summary="Figures of the last hours: by flow, user, model and provider",
        response_model=StatisticsAnswer,
        responses=error_answers(400, 401, 503),
        openapi_extra=query_of(_HOURS | _USER),
    )
    async def stats(request: Request) -> dict[str, Any]:
        query = request.query_params
        check_known(query, tuple(_HOURS | _USER))
        since, until = _window(services, query, DAY_HOURS)
        user = one_value(query, "user")
        return await services.store.statistics(since, until, caller_of().tenant, user)

    @router.get(
        "/api/stats/users/{user}",
        summary="A user's dashboard",
        response_model=UserDashboard,
        responses=error_answers(400, 401, 503),
        openapi_extra=query_of(_HOURS),
    )
    async def dashboard(request: Request, user: str) -> dict[str, Any]:
        check_known(request.query_params, tuple(_HOURS))
        since, until = _window(services, request.query_params, DAY_HOURS)
        tenant = caller_of().tenant
        figures = await services.store.statistics(since, until, tenant, user)
        newest = RunFilter(user=user, created_after=since, created_before=until, limit=RECENT)
        return user_dashboard(user, figures, await services.store.list(tenant, newest))

    @router.get(
        "/api/stats/health",
        summary="The system's health as one number, with its parts",
        response_model=HealthScoreAnswer,
        responses=error_answers(400, 401),
        openapi_extra=query_of(_NOW),
    )
    async def health(request: Request) -> dict[str, Any]:
        check_known(request.query_params, tuple(_NOW))
        since, until = _window(services, request.query_params, NOW_HOURS)
        return await system_health(services, since, until)

    return router


def _window(services: Services, query: QueryParams, default_hours: float) -> tuple[float, float]:
    """[since, until) in seconds since the epoch; raises ValidationError naming hours."""
    text = one_value(query, "hours")
    try:
        hours = default_hours if text is None else float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours <= MAX_HOURS:
        allowed = f"a number above 0, at most {MAX_HOURS:.0f}"
        raise ValidationError(f"hours: {text!r} is not allowed: {allowed}", param="hours")
    now = services.clock.time()
    return now - hours * _HOUR_S, now
