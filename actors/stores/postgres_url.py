"""A PostgreSQL URL taken apart: libpq's part, our schema, and a name that may be shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from registries.contracts.errors import ValidationError

SCHEMES = ("postgresql", "postgres")
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_ALLOWED = "postgresql://[USER[:PASSWORD]@][HOST[:PORT]][/DATABASE][?schema=NAME&sslmode=…]"


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """``conninfo`` is libpq's and may hold a password, ``shown`` never does; ``schema`` None: the server's"""

    conninfo: str
    schema: str | None
    shown: str

    def __repr__(self) -> str:
        return f"PostgresAddress({self.shown})"


def parse_postgres_url(url: str) -> PostgresAddress:
    """Raises ValidationError (param store_url), which never repeats the text: it may hold a password."""
    try:
        parts = urlsplit(url)
        host, database = parts.hostname, parts.path.strip("/")
        port = _first_port(parts.netloc)
    except ValueError:
        raise _refusal("is no URL") from None
    if parts.scheme not in SCHEMES or parts.fragment:
        raise _refusal("is no URL of a PostgreSQL database")
    options = [option for option in parts.query.split("&") if option]
    ours = [option for option in options if option.partition("=")[0] == "schema"]
    schemas = [unquote(option.partition("=")[2]) for option in ours]
    if len(schemas) > 1 or not all(_SCHEMA.fullmatch(name) for name in schemas):
        raise _refusal("has a schema that is no single plain name")
    rest = "&".join(option for option in options if option not in ours)
    address = f"postgresql://{parts.netloc}{parts.path}{'?' + rest if rest else ''}"
    shown = f"{database or 'the default database'} at {host or 'the local socket'}{port}"
    return PostgresAddress(address, schemas[0] if schemas else None, shown)


def _first_port(netloc: str) -> str:
    """libpq takes several hosts; the first stands for them in messages."""
    first = netloc.rpartition("@")[2].split(",")[0]
    port = re.search(r":(\d*)$", first)
    return f":{port[1]}" if port and port[1] else ""


def _refusal(fault: str) -> ValidationError:
    return ValidationError(f"PARLEY_STORE_URL {fault}. Allowed: {_ALLOWED}", param="store_url")
