"""Whether the configured Redis can be the hot tier."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from registries.contracts.errors import ValidationError

ASK_S = 2.0
MIN_VERSION = (7, 0)
"""The first that numbers entries within an id by itself (``XADD key 5-*``)."""


def hot_tier_problem(url: str) -> str | None:
    """What keeps this Redis from being used, in words and without the URL's password; None when nothing does.

    Blocks for two seconds at most.
    """
    try:
        from actors.stores.redis_client import FAULTS, open_client
    except ModuleNotFoundError as error:
        return f"the package {error.name} is not installed"

    async def ask() -> str:
        client = open_client(url, max_connections=1)
        try:
            async with asyncio.timeout(ASK_S):
                return str((await client.info("server"))["redis_version"])
        finally:
            await client.aclose()

    try:
        found = asyncio.run(ask())
    except ValidationError as error:
        return error.message
    except FAULTS as error:
        return f"no answer from {shown(url)} ({type(error).__name__})"
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    return None if numbers >= MIN_VERSION else f"{shown(url)} is Redis {found}"


def shown(url: str) -> str:
    """Host and port, or the socket's path."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path
