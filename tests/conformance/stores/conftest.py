"""A fresh database of every backend for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.stores.open_store import OPENERS, open_store
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig

URL_FIXTURES = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}
"""Scheme of an opener → the fixture that makes a URL of an empty database."""
_BACKENDS = sorted({opener: scheme for scheme, opener in sorted(OPENERS.items())}.values())
"""Each opener once, whatever other schemes it is known by."""


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path / 'a folder' / 'runs.db'}"


@pytest.fixture(params=_BACKENDS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> RuntimeConfig:
    url = request.getfixturevalue(URL_FIXTURES[request.param])
    return RuntimeConfig(home=str(tmp_path), store_url=url)


@pytest.fixture
async def store(config: RuntimeConfig) -> AsyncIterator[Store]:
    opened = await open_store(config)
    yield opened
    await opened.close()
