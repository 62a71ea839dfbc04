"""A real Redis for the tests: one that is there, or one of their own."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from actors.free_ports import free_port
from tests.own_server import OwnServer, own_folder
from tests.server_search import find_server, not_tested

MISSING = not_tested("Redis", "REDIS_URL", "redis-server")
_USUAL = ("redis://127.0.0.1:6379/0",)


@contextmanager
def some_redis() -> Iterator[str]:
    """The URL of a server: REDIS_URL, the local port 6379, else one started here. Skips when none is had.

    It may be somebody's: tests keep to keys of their own and never flush it.
    """
    started: list[OwnServer] = []

    def start() -> str | None:
        if shutil.which("redis-server") is None:
            return None
        started.append(_new_server())
        return started[0].url

    try:
        found = find_server("REDIS_URL", os.environ, _USUAL, redis_answers, start)
        if found is None:
            pytest.skip(MISSING)
        yield found
    finally:
        for server in started:
            server.remove()


@contextmanager
def own_redis(*options: str) -> Iterator[OwnServer]:
    """A server of one's own, running, which may be flushed; skips when it is not installed."""
    if shutil.which("redis-server") is None:
        pytest.skip(MISSING)
    server = _new_server(*options)
    try:
        yield server
    finally:
        server.remove()


@contextmanager
def own_keys(url: str) -> Iterator[str]:
    """The name of a runtime that nobody else has; its keys are removed at the end."""
    instance = f"test-{secrets.token_hex(6)}"
    try:
        yield instance
    finally:
        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter(match=f"parley:{instance}:*", count=1000):
                client.delete(key)


def redis_answers(url: str) -> bool:
    """Whether it takes commands."""
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            return bool(client.ping())
    except (redis.RedisError, ValueError):
        return False


def _new_server(*options: str) -> OwnServer:
    folder, port = own_folder("redis", None), free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "no", *options]
    server = OwnServer(f"redis://127.0.0.1:{port}/0", command, folder, redis_answers)
    try:
        server.start()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return server
