"""A real PostgreSQL for the tests: one that is there, or one of their own."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from actors.free_ports import free_port
from tests.own_server import OwnServer, own_folder, unprivileged_user
from tests.server_search import find_server, not_tested

_INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")
MISSING = not_tested("PostgreSQL", "POSTGRES_DSN", "the server's programs (initdb, postgres)")


@contextmanager
def some_postgres() -> Iterator[str]:
    """The DSN of a server: POSTGRES_DSN, the local port 5432, else one started here; skips without any."""
    started: list[OwnServer] = []

    def start() -> str | None:
        if postgres_programs() is None:
            return None
        started.append(_new_server())
        return started[0].url

    try:
        found = find_server("POSTGRES_DSN", os.environ, _usual(), postgres_answers, start)
        if found is None:
            pytest.skip(MISSING)
        yield found
    finally:
        for server in started:
            server.remove()


@contextmanager
def own_postgres(*settings: str) -> Iterator[OwnServer]:
    """A server of one's own, running; ``settings`` as ``name=value``. Skips when it is not installed."""
    if postgres_programs() is None:
        pytest.skip(MISSING)
    server = _new_server(*settings)
    try:
        yield server
    finally:
        server.remove()


@contextmanager
def own_schema(dsn: str) -> Iterator[str]:
    """A store URL with a schema of its own, which the store makes; removed afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    try:
        yield with_schema(dsn, name)
    finally:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE'.encode())


def with_schema(dsn: str, name: str) -> str:
    """The DSN as PARLEY_STORE_URL takes it, with this schema."""
    return f"{dsn}{'&' if '?' in dsn else '?'}schema={name}"


def postgres_answers(dsn: str) -> bool:
    """Whether somebody may log in there."""
    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


def postgres_programs() -> Path | None:
    """The folder with initdb and postgres; the newest where there are several."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    for pattern in _INSTALLED:
        folders += sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


def _usual() -> list[str]:
    users = dict.fromkeys(("postgres", getpass.getuser()))
    return [f"postgresql://{quote(user)}@127.0.0.1:5432/postgres" for user in users]


def _new_server(*settings: str) -> OwnServer:
    programs = postgres_programs()
    assert programs is not None
    user = unprivileged_user()
    folder = own_folder("postgres", user)
    data, port = folder / "data", free_port()
    try:
        subprocess.run(
            [
                programs / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            user=user,
        )
        chosen = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": str(folder)}
        chosen |= dict(setting.split("=", 1) for setting in settings)
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(data), *options]
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        server = OwnServer(url, command, folder, postgres_answers, user)
        server.start()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return server
