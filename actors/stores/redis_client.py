"""Connections to Redis as the hot tier wants them: no retries, short patience, one kind of fault."""

from __future__ import annotations

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from registries.contracts.errors import ValidationError

FAULTS: tuple[type[BaseException], ...] = (RedisError, OSError, TimeoutError)
"""Everything that a call may raise when Redis is down, slow, full, or something else than Redis."""


def open_client(url: str, answer_s: float, max_connections: int) -> redis.asyncio.Redis:
    """A client that gives up after ``answer_s`` without an answer; nothing is connected yet.

    The caller closes it. Raises ValidationError (param redis_url, without the URL: it may have a password).
    """
    try:
        client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
            url,
            protocol=2,
            decode_responses=False,
            socket_timeout=answer_s,
            socket_connect_timeout=answer_s,
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
