"""The OpenAPI document: schemas of bodies that are parsed from bytes, of errors and of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from registries.contracts.generation import GenerationResult
from registries.contracts.runs import RunEvent
from serve_app.idempotency import HEADER
from serve_app.run_schemas import (
    CreateRunRequest,
    FeedbackRequest,
    ForkRequest,
    RestartRequest,
    ResumeRequest,
    RunUpdate,
)
from serve_app.schemas import ErrorAnswer, InferenceRequest, OrchestrateRequest, TokenEvent

_REF = "#/components/schemas/{model}"
_EXTRA_MODELS: tuple[type[pydantic.BaseModel], ...] = (
    InferenceRequest,
    OrchestrateRequest,
    CreateRunRequest,
    RestartRequest,
    ResumeRequest,
    ForkRequest,
    FeedbackRequest,
    RunUpdate,
    ErrorAnswer,
    TokenEvent,
    GenerationResult,
    RunEvent,
)
_MEANINGS: dict[int, str] = {
    400: "the request is wrong; the message names the field, the value and what is allowed",
    401: "no API key, or a wrong one",
    402: "the money budget is spent",
    404: "unknown run, flow, model, strategy or route",
    409: "the run was cancelled, or its state forbids this",
    413: "the body is too large",
    422: "this Idempotency-Key came with another request before",
    429: "queues are full, or nothing fits the constraints now; see Retry-After",
    500: "a fault of ours; the log has it under the request_id",
    502: "the model's provider failed",
    503: "the database or the provider cannot take it now",
    504: "the deadline passed",
    507: "the database is full; nothing was accepted",
}


def body_of(model: type[pydantic.BaseModel], required: bool = True) -> dict[str, Any]:
    """``openapi_extra`` of a route that parses its body itself."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def key_and(extra: dict[str, Any] | None = None, stands_for: str = "run") -> dict[str, Any]:
    """``openapi_extra`` of a POST that takes an Idempotency-Key, added to ``extra``."""
    schema = {"type": "string", "minLength": 1, "maxLength": 255}
    meaning = (
        f"repeated with the same body it is the same {stands_for}, which then says Idempotency-Replayed: true"
    )
    header = {"name": HEADER, "in": "header", "required": False, "schema": schema, "description": meaning}
    return {**(extra or {}), "parameters": [header]}


def query_of(meanings: Mapping[str, str]) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its query parameters itself."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": {"type": "string"},
                "description": told,
            }
            for name, told in meanings.items()
        ]
    }


def error_answers(*statuses: int, stream: str | None = None) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route: its error statuses, and what it streams when asked to."""
    answers: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer, "description": _MEANINGS[status]} for status in statuses
    }
    if stream is not None:
        example = {"schema": {"type": "string", "description": f"server-sent events: {stream}"}}
        answers[200] = {"content": {"text/event-stream": example}}
    return answers


def install_openapi(app: FastAPI) -> None:
    """Make ``/openapi.json`` carry every schema and the two ways to send the key."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in _EXTRA_MODELS:
        schema = model.model_json_schema(ref_template=_REF)
        for name, part in schema.pop("$defs", {}).items():
            schemas.setdefault(name, part)
        schemas.setdefault(model.__name__, schema)
    components["securitySchemes"] = {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "Bearer": {"type": "http", "scheme": "bearer"},
    }
    document["security"] = [{"ApiKey": []}, {"Bearer": []}]
    return document
