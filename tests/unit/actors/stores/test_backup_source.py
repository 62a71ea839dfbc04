from __future__ import annotations

import pytest

from actors.stores.backup_source import SOURCES, backup_source
from actors.stores.open_database import OPENERS
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError


def test_what_can_be_opened_can_be_backed_up() -> None:
    assert SOURCES.keys() == OPENERS.keys()


def test_the_source_is_of_the_kind_of_the_url() -> None:
    for url, backend in (("", "sqlite"), ("sqlite:///a.db", "sqlite"), ("postgres://h/d", "postgresql")):
        assert backup_source(RuntimeConfig(home="h", store_url=url)).backend == backend


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite:///a.db?mode=rw", "postgresql://h/d?schema=a-b"])
def test_a_url_that_says_nothing_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        backup_source(RuntimeConfig(home="h", store_url=url))
    assert caught.value.param == "store_url"
