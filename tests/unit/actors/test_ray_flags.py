from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from actors.ray_flags import (
    FLAGS,
    LOGICAL_CPUS,
    RayPorts,
    find_ports,
    gcs_address,
    head_arguments,
    private_dir,
    ray_environment,
    token_path,
)
from actors.ray_token import ensure_ray_token, read_ray_token
from registries.contracts.config import RuntimeConfig

CONFIG = RuntimeConfig(home="/somewhere/home", instance="i-1", dashboard_port=12345)
PORTS = RayPorts(7001, 7002, 7003, 7004, 7005, 7006, 7007, 7008)


def test_every_flag_is_set_and_every_ray_variable_is_a_declared_flag() -> None:
    environment = ray_environment(CONFIG, PORTS)
    assert {name for name in environment if name.startswith("RAY_")} == {flag.name for flag in FLAGS}
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)
    assert all(flag.why for flag in FLAGS)
    assert environment["PARLEY_INSTANCE"] == "i-1"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["LANGGRAPH_STRICT_MSGPACK"] == "true"


def test_haproxy_can_be_off() -> None:
    off = CONFIG.model_copy(update={"haproxy": False})
    assert ray_environment(off, PORTS)["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert ray_environment(CONFIG, PORTS)["RAY_SERVE_ENABLE_HA_PROXY"] == "1"


def test_rays_ports_are_none_of_the_runtime_s_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.ray_flags.free_ports", lambda count: list(range(20_000, 20_000 + count)))
    found = set(dataclasses.astuple(find_ports(exclude=(20_000, 20_003))))
    assert len(found) == len(dataclasses.fields(RayPorts)) and not found & {20_000, 20_003}


def test_ports_are_different_and_the_gcs_never_takes_redis_place() -> None:
    ports = find_ports()
    values = dataclasses.astuple(ports)
    assert len(set(values)) == len(values)
    with pytest.raises(ValueError, match="6379"):
        dataclasses.replace(ports, gcs=6379)
    assert gcs_address(PORTS) == "127.0.0.1:7001"


def test_the_head_listens_on_our_ports_with_more_cpus_than_cores() -> None:
    arguments = head_arguments(CONFIG, PORTS)
    assert "--port=7001" in arguments and "--dashboard-port=12345" in arguments
    cpus = next(int(a.split("=")[1]) for a in arguments if a.startswith("--num-cpus="))
    assert cpus >= LOGICAL_CPUS


def test_socket_paths_fit_into_what_haproxy_takes() -> None:
    node_id = "f" * 56
    environment = ray_environment(CONFIG.model_copy(update={"home": "/very" * 60}), PORTS)
    for name in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
        path = Path(environment[name])
        assert len(str(path.parent / node_id / path.name)) <= 97


def test_two_homes_have_two_folders() -> None:
    other = CONFIG.model_copy(update={"home": "/somewhere/else"})
    assert private_dir(CONFIG) != private_dir(other)
    assert private_dir(CONFIG) == private_dir(CONFIG)


def test_the_token_is_made_once_for_its_owner(tmp_path: Path) -> None:
    config = RuntimeConfig(home=str(tmp_path / "home"))
    path = ensure_ray_token(config)
    token = read_ray_token(config)
    assert path == token_path(config) and len(token) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    ensure_ray_token(config)
    assert read_ray_token(config) == token and path.stat().st_mode & 0o777 == 0o600
