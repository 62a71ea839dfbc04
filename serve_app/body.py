"""Reading a request's body: bounded while it streams in, then straight into its model."""

from __future__ import annotations

from typing import TypeVar

import pydantic
from starlette.requests import ClientDisconnect, Request

from registries.contracts.errors import ValidationError
from serve_app.bad_input import describe_bad_input
from serve_app.errors import PayloadTooLarge
from serve_app.finite_numbers import refuse_infinite

M = TypeVar("M", bound=pydantic.BaseModel)


async def read_body(request: Request, model: type[M], max_bytes: int, may_be_empty: bool = False) -> M:
    """The body as ``model``; no body at all is an empty object where it ``may_be_empty``.

    Raises PayloadTooLarge as soon as the announced or received size passes ``max_bytes``, and
    ValidationError for an empty, non-UTF-8, non-JSON or wrong body, one with NaN or infinities among them.
    """
    raw = await _read_bounded(request, max_bytes)
    if not raw.strip():
        if may_be_empty:
            return model()
        raise ValidationError("the body is empty; send a JSON object", param="body")
    try:
        # Checked first because pydantic's own message would only speak of JSON.
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValidationError(f"the body is not UTF-8 (byte {error.start})", param="body") from None
    try:
        body = model.model_validate_json(raw)
    except pydantic.ValidationError as error:
        raise describe_bad_input(error, model) from None
    refuse_infinite(body)
    return body


async def _read_bounded(request: Request, max_bytes: int) -> bytes:
    announced = request.headers.get("content-length")
    if announced is not None and announced.isdigit() and int(announced) > max_bytes:
        raise _too_large(max_bytes, int(announced))
    parts: list[bytes] = []
    received = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        received += len(part)
        if received > max_bytes:
            raise _too_large(max_bytes, received)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(max_bytes: int, size: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has {size} bytes or more; allowed: {max_bytes}", param="body")
