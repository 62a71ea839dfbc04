"""A PostgreSQL database for one run of the bench, in the server of POSTGRES_DSN, else the local one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

DEFAULT_DSN = "postgresql://postgres@127.0.0.1:5432/postgres"


@contextmanager
def bench_database() -> Iterator[str]:
    """Its URL; dropped after. Raises RuntimeError when no server can be reached."""
    import psycopg

    dsn = os.environ.get("POSTGRES_DSN", DEFAULT_DSN)
    name = f"parley_bench_{secrets.token_hex(4)}"
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=3) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
    except psycopg.Error as error:
        raise RuntimeError(f"no PostgreSQL to measure (POSTGRES_DSN): {error}") from error
    try:
        yield urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
