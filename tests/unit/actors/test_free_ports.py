"""Ports that stay free until they are bound."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.free_ports import choose, ephemeral_range, free_port, free_ports, is_free


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def taken(request: pytest.FixtureRequest) -> Iterator[int]:
    with socket.create_server((request.param, 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_somebody_listens_on_is_not_free(taken: int) -> None:
    assert not is_free(taken)


def test_a_port_that_an_outgoing_connection_has_is_not_free() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert not is_free(client.getsockname()[1])


def test_they_are_free_different_and_given_to_no_connection() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20 and all(is_free(port) for port in ports)
    assert not set(ports) & set(ephemeral_range())
    assert free_port() not in ephemeral_range()


def test_the_range_is_the_system_s(tmp_path: Path) -> None:
    setting = tmp_path / "ip_local_port_range"
    setting.write_text("10000\t20000\n")
    assert ephemeral_range(setting) == range(10_000, 20_001)
    assert ephemeral_range(tmp_path / "not there") == range(49_152, 65_536)


def test_only_free_candidates_are_chosen_and_two_choices_differ() -> None:
    candidates = range(20_000, 30_000)
    even = choose(5, candidates, lambda port: port % 2 == 0, random.Random(1))
    assert len(set(even)) == 5 and all(port in candidates and port % 2 == 0 for port in even)
    assert even != choose(5, candidates, lambda port: port % 2 == 0, random.Random(2))


def test_where_every_port_is_handed_out_the_system_chooses() -> None:
    chosen = choose(3, [20_000], lambda port: True, random.Random(1))
    assert len(set(chosen)) == 3 and chosen[0] == 20_000 and all(map(is_free, chosen[1:]))
