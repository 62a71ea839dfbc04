"""Ports: free or not, and a refusal that says what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from actors.free_ports import free_port
from registries.contracts.errors import Conflict
from serve_app.lifecycle.ports import WantedPort, check_ports, holder_of


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def taken(request: pytest.FixtureRequest) -> Iterator[int]:
    with socket.create_server((request.param, 0)) as server:
        yield server.getsockname()[1]


def test_the_holder_is_named(taken: int) -> None:
    holder = holder_of(taken)
    assert holder is not None and str(os.getpid()) in holder
    assert holder_of(free_port()) is None


def test_every_taken_port_is_named_with_its_option(taken: int) -> None:
    wanted = [
        WantedPort(taken, "the HTTP API", "--port", "PORT"),
        WantedPort(free_port(), "the Ray dashboard", "--dashboard-port", "PARLEY_DASHBOARD_PORT"),
    ]
    with pytest.raises(Conflict) as caught:
        check_ports(wanted)
    assert f"port {taken} (the HTTP API) is in use by" in caught.value.message
    assert "--port N or PORT=N" in caught.value.message
    assert "dashboard" not in caught.value.message


def test_free_ports_pass() -> None:
    check_ports([WantedPort(free_port(), "x", "--x", "X")])
