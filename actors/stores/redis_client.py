"""Connections to Redis as the hot tier wants them: no retries, the caller's patience, one kind of fault."""

from __future__ import annotations

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from registries.contracts.errors import ValidationError

FAULTS: tuple[type[BaseException], ...] = (RedisError, OSError, TimeoutError)
"""Everything that a call may raise when Redis is down, slow, full, or something else than Redis."""


def open_client(url: str, max_connections: int) -> redis.asyncio.Redis:
    """A client; nothing is connected yet. Every use belongs into ``asyncio.timeout``: it waits for ever.

    (Its own timeouts go through ``asyncio.wait_for``, which before Python 3.12 swallows a cancellation that
    comes together with the answer.) The caller closes it. Raises ValidationError (param redis_url, without
    the URL: it may have a password).
    """
    try:
        client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
            url,
            protocol=2,
            decode_responses=False,
            socket_timeout=None,
            socket_connect_timeout=None,
            # Its own retries would add up to seconds; the breakers decide when to try again.
            retry=Retry(NoBackoff(), 0),
            max_connections=max_connections,
        )
    except ValueError as error:
        raise ValidationError(
            "redis_url cannot be read. Allowed: redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://… or unix://…",
            param="redis_url",
        ) from error
    return client
