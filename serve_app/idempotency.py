"""Idempotency-Key: what makes two requests the same one."""

from __future__ import annotations

import hashlib
import json
import re

import pydantic
from starlette.requests import Request

from actors.stores.records import IdempotencyKey
from registries.contracts.errors import ValidationError

HEADER = "Idempotency-Key"
REPLAYED = {"idempotency-replayed": "true"}
"""On answers about a run that an earlier request with the same key made."""
_ALLOWED = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def idempotency_key(request: Request, body: pydantic.BaseModel | None = None) -> IdempotencyKey | None:
    """The request's key with the digest over method, path and body; None without one.

    Only what was sent counts, in any order of fields and any spacing: a default that a later version
    adds must not make a repeated request another one. Raises ValidationError for a key that is not
    1–255 printable ASCII characters.
    """
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1 or not _ALLOWED.fullmatch(given[0]):
        raise ValidationError(f"{HEADER} must be one of 1 to 255 printable ASCII characters", param=HEADER)
    sent = {} if body is None else body.model_dump(mode="json", exclude_unset=True)
    canonical = json.dumps(sent, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n{canonical}".encode())
    return IdempotencyKey(given[0], digest.hexdigest())
