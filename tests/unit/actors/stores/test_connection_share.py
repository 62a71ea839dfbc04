"""A node's connections, divided among its processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.stores.connection_share import (
    LEAST_CONNECTIONS,
    MOST_LANES,
    RENEWER_CONNECTIONS,
    ConnectionShare,
    ServerRoom,
    connection_share,
    require_room,
)
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError

COUNT = st.integers(1, 40)


def config(pool_min: int = 10, pool_max: int = 20, runners: int = 2, ingresses: int = 1) -> RuntimeConfig:
    return RuntimeConfig(
        home="/nowhere",
        pool_min=pool_min,
        pool_max=pool_max,
        runner_max_replicas=runners,
        ingress_max_replicas=ingresses,
    )


@given(st.integers(1, 300), st.integers(2, 300), COUNT, COUNT)
def test_all_processes_together_stay_within_the_nodes_connections(
    pool_min: int, pool_max: int, runners: int, ingresses: int
) -> None:
    given_config = config(pool_min, pool_max, runners, ingresses)
    try:
        shares = {role: connection_share(given_config, role) for role in ("ingress", "runner", "tool")}
    except ValidationError as error:
        assert error.param == "pool_max" and f"={pool_max} " in error.message
        needed = runners * (LEAST_CONNECTIONS + RENEWER_CONNECTIONS) + ingresses * LEAST_CONNECTIONS + 2
        assert pool_max < needed and str(needed) in error.message
        return
    used = shares["tool"].maximum + ingresses * shares["ingress"].maximum
    used += runners * (shares["runner"].maximum + RENEWER_CONNECTIONS)
    assert used <= pool_max
    for share in shares.values():
        assert 1 <= share.minimum <= share.maximum and share.maximum >= LEAST_CONNECTIONS


def test_the_defaults_give_every_process_room_to_write_and_read_at_once() -> None:
    runner = connection_share(config(), "runner")
    assert (runner.minimum, runner.maximum) == (2, 5)
    assert connection_share(config(), "ingress") == runner
    assert connection_share(config(), "tool").maximum == 2


@given(st.integers(0, 500), st.integers(0, 20), st.integers(0, 300), st.integers(2, 100), COUNT)
def test_room_is_what_nobody_else_has(
    limit: int, reserved: int, held: int, pool_max: int, nodes: int
) -> None:
    fits = pool_max * nodes <= limit - reserved - held
    try:
        require_room(ServerRoom(limit, reserved, held), pool_max, nodes)
    except ValidationError as error:
        assert not fits and error.param == "pool_max"
        for figure in (limit, reserved, held, pool_max * nodes):
            assert str(figure) in error.message
    else:
        assert fits


@given(st.integers(2, 100), st.floats(0, 1))
def test_every_process_has_threads_that_write_and_threads_that_read(
    maximum: int, round_trip_s: float
) -> None:
    lanes = ConnectionShare(1, maximum).lanes(round_trip_s)
    assert 1 <= lanes < maximum and lanes <= 1 + MOST_LANES
    if maximum >= 4:
        assert lanes >= 2


def test_a_far_server_gets_more_lanes() -> None:
    share = ConnectionShare(2, 12)
    assert share.lanes(0.0001) == 2 and share.lanes(0.01) == 1 + MOST_LANES


def test_the_refusal_says_what_to_do() -> None:
    with pytest.raises(ValidationError, match="Raise max_connections, or lower PARLEY_POOL_MAX"):
        require_room(ServerRoom(100, 3, 60), 20, 2)
