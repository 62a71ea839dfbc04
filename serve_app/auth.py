"""The API key: reading it from headers and comparing it without telling how much was right."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from registries.contracts.errors import ValidationError

_BEARER = b"bearer "


class KeyCheck:
    """Knows one key by its digest; an empty key is refused, so that nothing is open by mistake."""

    def __init__(self, api_key: str) -> None:
        if not api_key:
            raise ValidationError("api_key is empty: the API is never served without one", param="api_key")
        self._digest = hashlib.sha256(api_key.encode()).digest()

    def accepts(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether X-API-Key or Authorization: Bearer carries the key; constant time in the key's content."""
        given = presented_key(headers)
        if given is None:
            return False
        return hmac.compare_digest(hashlib.sha256(given).digest(), self._digest)


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key in the request, X-API-Key first; None when there is none."""
    bearer: bytes | None = None
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            bearer = value[len(_BEARER) :].strip()
    return bearer
