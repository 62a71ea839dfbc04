"""The ASGI application: routes, error handlers and the layers around them."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp

from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import NotFound, ParleyError, ValidationError
from serve_app.auth import KeyCheck
from serve_app.error_response import error_response
from serve_app.errors import MethodNotAllowed, as_parley_error
from serve_app.middleware.admission import Admission
from serve_app.middleware.authentication import Authentication
from serve_app.middleware.envelope import Envelope
from serve_app.openapi import install_openapi
from serve_app.request_facts import facts_of
from serve_app.routes.catalogue import catalogue_routes
from serve_app.routes.docs import docs_routes
from serve_app.routes.inference import inference_routes
from serve_app.routes.operations import operations_routes
from serve_app.routes.orchestrate import orchestrate_routes
from serve_app.routes.run_actions import run_action_routes
from serve_app.routes.run_again import run_again_routes
from serve_app.routes.run_events import run_event_routes
from serve_app.routes.run_fork import run_fork_routes
from serve_app.routes.run_socket import run_socket_routes
from serve_app.routes.runs import run_routes
from serve_app.routes.statistics import statistics_routes
from serve_app.services import Metrics, Services


def create_api(services: Services, echo_request_id: bool = True) -> ASGIApp:
    """The whole front door: Envelope → Authentication → Admission → routes.

    Authentication and admission come before anything of a body is read. Raises ValidationError when the
    configuration has no API key.
    """
    keys = KeyCheck(services.config.api_key)
    config = services.config
    admitted = Admission(
        _routes(services, keys),
        config.max_ongoing_requests,
        max_watchers(config),
        services.metrics.record_rejected,
    )
    return Envelope(Authentication(admitted, keys), echo_request_id)


def max_watchers(config: RuntimeConfig) -> int:
    """How many connections may watch runs at once: as many as may ask for something."""
    return config.max_ongoing_requests


def _routes(services: Services, keys: KeyCheck) -> FastAPI:
    app = FastAPI(
        title="Parley",
        version=services.version,
        description="Several models draft, criticise, vote and merge.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    # In the order of their traffic: routes are matched one after another.
    for router in (
        inference_routes(services),
        orchestrate_routes(services),
        run_routes(services),
        run_action_routes(services),
        run_again_routes(services),
        run_fork_routes(services),
        run_event_routes(services),
        run_socket_routes(services, keys),
        operations_routes(services),
        statistics_routes(services),
        catalogue_routes(services),
        docs_routes(),
    ):
        app.include_router(router)
    app.add_exception_handler(ParleyError, _failure_handler(services.metrics))
    app.add_exception_handler(HTTPException, _routing)
    # Starlette raises these again after the answer, and the Envelope logs them.
    app.add_exception_handler(Exception, _failure_handler(services.metrics))
    install_openapi(app)
    return app


def _failure_handler(metrics: Metrics) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        known = as_parley_error(error)
        metrics.record_error(known.code)
        return error_response(known, facts_of(request.scope).request_id)

    return answer


async def _routing(request: Request, error: Exception) -> Response:
    """Unknown routes and wrong methods, in our shape."""
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    headers = dict(error.headers or {})
    shown: ParleyError
    if error.status_code == 405:
        headers["Allow"] = allowed = ", ".join(_methods_of(request))
        shown = MethodNotAllowed(f"{method} is not allowed on {path}; allowed: {allowed}", param="method")
    elif error.status_code == 404:
        shown = NotFound(_unknown_route(request.app, method, path), param="path")
    else:
        shown = ValidationError(str(error.detail))
    response = error_response(shown, facts_of(request.scope).request_id)
    response.headers.update(headers)
    return response


def _methods_of(request: Request) -> list[str]:
    """Of every route with this path: Starlette names those of the first one only."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


def _unknown_route(app: FastAPI, method: str, path: str) -> str:
    known = sorted({route.path for route in app.routes if hasattr(route, "path")})
    near = difflib.get_close_matches(path, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"there is no route {method} {path}.{hint} All routes: /docs"
