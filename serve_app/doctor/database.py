"""Whether the configured database can be reached."""

from __future__ import annotations

from actors.stores.postgres_url import parse_postgres_url
from registries.contracts.errors import ParleyError


def database_problem(url: str) -> str | None:
    """What keeps this PostgreSQL from being used, without the URL's password; None when nothing does.

    Blocks for a few seconds at most; changes nothing.
    """
    try:
        import psycopg

        from actors.stores.postgres_connection import connection_options
    except ModuleNotFoundError as error:
        return f"the package {error.name} is not installed"
    try:
        options = connection_options(parse_postgres_url(url), "parley-doctor")
        psycopg.connect(**options).close()
    except ParleyError as error:
        return error.message
    except psycopg.Error as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None
