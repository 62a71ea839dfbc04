"""PostgreSQL URLs: what goes to libpq, what is ours, what may be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.stores.postgres_url import parse_postgres_url
from registries.contracts.errors import ValidationError


@pytest.mark.parametrize(
    ("url", "conninfo", "schema", "shown"),
    [
        ("postgresql://u:pw@db:5433/runs", "postgresql://u:pw@db:5433/runs", None, "runs at db:5433"),
        ("postgres://db/runs?schema=parley", "postgresql://db/runs", "parley", "runs at db"),
        (
            "postgresql://u@db/runs?sslmode=require&schema=a_1&options=-c%20x%3D1",
            "postgresql://u@db/runs?sslmode=require&options=-c%20x%3D1",
            "a_1",
            "runs at db",
        ),
        ("postgresql:///runs", "postgresql:///runs", None, "runs at the local socket"),
        ("postgresql://u:p@a:1,b:2/runs", "postgresql://u:p@a:1,b:2/runs", None, "runs at a:1"),
        ("postgresql://[::1]:5/x", "postgresql://[::1]:5/x", None, "x at ::1:5"),
        ("postgresql://db", "postgresql://db", None, "the default database at db"),
    ],
)
def test_a_url_taken_apart(url: str, conninfo: str, schema: str | None, shown: str) -> None:
    address = parse_postgres_url(url)
    assert (address.conninfo, address.schema, address.shown) == (conninfo, schema, shown)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hush@db/runs",
        "postgresql://u:hush@[::1/runs",
        "postgresql://u:hush@db/runs#part",
        "postgresql://u:hush@db/runs?schema=",
        "postgresql://u:hush@db/runs?schema=a&schema=b",
        'postgresql://u:hush@db/runs?schema=a";DROP',
        "postgresql://u:hush@db/runs?schema=1a",
    ],
)
def test_a_refusal_never_repeats_the_password(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_postgres_url(url)
    assert caught.value.param == "store_url"
    assert "hush" not in str(caught.value) and "Allowed" in str(caught.value)


@given(st.from_regex(r"[A-Za-z0-9%._~-]{12,30}", fullmatch=True))
def test_what_is_shown_never_holds_the_password(password: str) -> None:
    address = parse_postgres_url(f"postgresql://user:{password}@db:5432/runs?schema=s")
    assert password not in repr(address) and password in address.conninfo
