"""The runtime that the tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.place import Place
from tests.e2e.scripted_place import FOREIGN_KEY, OWN_KEY, scripted_place


@pytest.fixture(scope="package")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place where `parley up` was typed; tests kill, stop and start what runs there, one after another.

    The first one has a key of its user's own; those that are started after it have the home's.
    """
    made = scripted_place(tmp_path_factory.mktemp("runtime"))
    made.good("parley up", PARLEY_API_KEY=OWN_KEY, MISTRAL_API_KEY=FOREIGN_KEY)
    yield made
    made.type("parley down")
