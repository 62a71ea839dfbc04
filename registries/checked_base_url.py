"""What may stand in ``base_url``: checked when it is read, not when it is called for the first time."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_CREDENTIALS = re.compile(r"//\S*@")


def checked_base_url(url: str) -> str:
    """The URL as it is. Raises ValueError, whose text has nothing of a user or password in it."""
    shown = without_credentials(url)
    try:
        parts = urlsplit(url)
        _ = parts.port
        # As the client will: a label that is empty or too long would be a ValueError there.
        (parts.hostname or "").encode("idna")
    except ValueError:
        raise ValueError(f"{shown!r} is no URL with a host and a port from 0 to 65535") from None
    if "@" in parts.netloc:
        raise ValueError(
            f"{shown!r} must not hold a user or password: it is shown to users and in the log;"
            " api_key_env names the environment variable that has the key"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"\s", url):
        raise ValueError(f"{shown!r} must be http://HOST:PORT/PATH or https://HOST/PATH")
    return url


def without_credentials(text: str) -> str:
    """The text with what may be a URL's user and password left out; rather too much than too little."""
    return _CREDENTIALS.sub("//…@", text)
