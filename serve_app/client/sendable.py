"""What HTTP cannot carry is refused before it is sent, by name: a codec's error would name nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from registries.contracts.errors import ValidationError

_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_DOT_SEGMENTS = frozenset({".", ".."})
_MAX_PORT = 65_535


def header_value(text: str, param: str) -> str:
    """The text itself, which may be a secret and is not shown; raises ValidationError."""
    if not _HEADER_VALUE.fullmatch(text):
        raise ValidationError(
            f"{param} must be printable ASCII, not empty, without spaces at its ends", param=param
        )
    return text


def path_segment(text: str, param: str, words: str) -> str:
    """The text as one segment of a path; raises ValidationError for one that would ask for another path."""
    if not text.strip():
        raise ValidationError(f"{words} is empty", param=param)
    # URLs take these two for a way upwards, however they are quoted (RFC 3986, 5.2.4).
    if text in _DOT_SEGMENTS:
        raise ValidationError(f"{text!r} is not {words}", param=param)
    _check_text(text, param)
    return quote(text, safe="")


def check_base_url(text: str) -> None:
    """Raises ValidationError for what is no address of an HTTP server."""
    try:
        url = httpx.URL(text)
        # As the socket does it: it would raise for a label that is empty or too long.
        host = url.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        host = b""
    else:
        if url.scheme not in ("http", "https") or " " in text or (url.port or 0) > _MAX_PORT:
            host = b""
    if not host:
        raise ValidationError(
            f"base_url {text!r} is not allowed. Allowed: an address such as http://127.0.0.1:8001",
            param="base_url",
        )


def check_params(params: Mapping[str, Any]) -> None:
    """Raises ValidationError naming the parameter of a query that is no text."""
    for name, value in params.items():
        if isinstance(value, str):
            _check_text(value, name)


def check_body(body: Mapping[str, Any]) -> None:
    """Raises ValidationError naming the field that is no JSON: NaN and Infinity are none."""
    for name, value in body.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:
            raise ValidationError(f"{name} has text that is not valid UTF-8", param=name) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise ValidationError(f"{name} cannot be sent as JSON: {error}", param=name) from None


def _check_text(text: str, param: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationError(f"{param} {text!a} is not valid UTF-8", param=param) from None
