"""Fixtures that several suites share."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

import pytest

# Before Ray is imported: Serve's threads outlive a driver for a moment and would start a cluster themselves.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

from tests.machine_pace import measure_again, paced
from tests.runtime_cluster import RunningCluster, attached_to, running_cluster
from tests.server_search import NOT_TESTED, UNTESTED_VARIABLE


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    """The one runtime of the session: Ray, HAProxy, the API and scripted models, as `parley up` starts it."""
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def driver(cluster: RunningCluster) -> Iterator[RunningCluster]:
    """The cluster with this process attached to it (Serve handles, actors)."""
    with attached_to(cluster):
        yield cluster


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A real PostgreSQL for the whole session (tests.postgres_server)."""
    from tests.postgres_server import some_postgres

    with some_postgres() as dsn:
        yield dsn


@pytest.fixture
def postgres_url(postgres_dsn: str) -> Iterator[str]:
    """A store URL on it with a schema of this test's own."""
    from tests.postgres_server import own_schema

    with own_schema(postgres_dsn) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real Redis for the whole session; it may be somebody's, so that it is never flushed."""
    from tests.redis_server import some_redis

    with some_redis() as url:
        yield url


@pytest.fixture
def redis_instance(redis_url: str) -> Iterator[str]:
    """The name of a runtime whose keys in that Redis are this test's own; they go with it."""
    from tests.redis_server import own_keys

    with own_keys(redis_url) as instance:
        yield instance


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test may take as long as its work takes on this machine, but twice its limit is a hang anywhere.

    The limits are several times what tests take; without the bound, one that hangs costs a slow machine an
    hour.
    """
    for item in items:
        stated = item.get_closest_marker("timeout")
        seconds = stated.args[0] if stated is not None else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(min(paced(seconds), 2 * seconds)), append=False)


def pytest_runtest_setup() -> None:
    """Limits follow a machine that becomes slower in the middle of the run."""
    measure_again()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the very end what no server could be had for: such a run is no proof for it.

    ``make test`` says it once more behind its last suite (UNTESTED_VARIABLE names the file for that).
    """
    untested: defaultdict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if report.longrepr else ""
        if NOT_TESTED in reason:
            untested[reason.removeprefix("Skipped: ")].append(report.nodeid.partition("::")[0])
    lines = [
        f"!!! {reason} ({len(files)} tests skipped, in {', '.join(sorted(set(files)))})"
        for reason, files in sorted(untested.items())
    ]
    for line in lines:
        terminalreporter.write_line(line, red=True, bold=True)
    if path := os.environ.get(UNTESTED_VARIABLE):
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
