"""An error as an HTTP response."""

from __future__ import annotations

from starlette.responses import Response

from registries.contracts.errors import ParleyError
from serve_app.errors import error_body, error_fact, error_headers, http_status


def error_response(error: ParleyError, request_id: str) -> Response:
    """The response for an error of the tree: status, shape, Retry-After."""
    fact = error_fact(error)
    return Response(
        error_body(fact, request_id),
        status_code=http_status(fact.code, fact.fault, fact.param),
        headers=error_headers(fact),
        media_type="application/json",
    )
