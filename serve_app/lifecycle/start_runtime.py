"""`parley up`: Ray's head node, the application on it, and the file that says so."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from actors.ray_flags import RayPorts, find_ports, gcs_address, ray_dir
from actors.ray_token import ensure_ray_token
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import Conflict, InternalError
from serve_app.lifecycle.compose_config import changed_fields, compose_config, read_config
from serve_app.lifecycle.find_runtime import DAEMONS, find_runtime
from serve_app.lifecycle.ports import WantedPort, check_ports
from serve_app.lifecycle.processes import fact_of, marked_processes
from serve_app.lifecycle.progress import Progress
from serve_app.lifecycle.ray_head import (
    RayNotStarted,
    cluster_environment,
    prepare_private_dir,
    start_deployer,
    start_head,
)
from serve_app.lifecycle.runtime_home import RuntimeHome, write_private
from serve_app.lifecycle.runtime_state import RuntimeState, write_state
from serve_app.lifecycle.stop_runtime import end_runtime
from serve_app.settings import Settings


@dataclass(frozen=True, slots=True)
class StartReport:
    """``fresh`` is False when the runtime was running already; ``changed`` are settings it does not have."""

    state: RuntimeState
    fresh: bool
    changed: tuple[str, ...] = ()


def start_runtime(
    settings: Settings, home: RuntimeHome, progress: Progress, *, insisted: frozenset[str] = frozenset()
) -> StartReport:
    """Start it, or find the one that runs; returns when it is deploying (see await_ready).

    ``insisted`` are fields of RuntimeConfig that the caller asked for by a flag: a running runtime that
    has others is a Conflict. Raises ValidationError (configuration, registries), Conflict (ports, another
    start), InternalError (Ray did not start; everything is ended again).
    """
    home.ensure()
    with home.lock():
        found = find_runtime(home)
        if found.condition == "running" and found.state:
            return _running_already(settings, home, found.state, insisted)
        if found.condition == "stale":
            progress.say("cleaning up after a runtime that ended by itself")
            end_runtime(home, progress)
        config = compose_config(settings, home, instance=uuid.uuid4().hex)
        check_ports(_wanted_ports(config))
        try:
            return StartReport(_start_patiently(config, home, progress), fresh=True)
        except BaseException:
            end_runtime(home, progress)
            raise


def _start_patiently(config: RuntimeConfig, home: RuntimeHome, progress: Progress) -> RuntimeState:
    """A port that was free may be taken by the time Ray binds it: one more try, with others, and said."""
    try:
        return _start(config, home, progress)
    except RayNotStarted as error:
        progress.say(f"{error.message}; trying once more")
        end_runtime(home, progress)
    return _start(config, home, progress)


def _running_already(
    settings: Settings, home: RuntimeHome, state: RuntimeState, insisted: frozenset[str]
) -> StartReport:
    running = read_config(home)
    if running is None:
        return StartReport(state, fresh=False)
    changed = changed_fields(running, compose_config(settings, home, instance=running.instance))
    refused = sorted(insisted & set(changed))
    if refused:
        raise Conflict(
            f"a runtime is running already, at {state.api_url}, with another {', '.join(refused)}. "
            "End it first: parley down",
            param=refused[0],
        )
    return StartReport(state, fresh=False, changed=tuple(changed))


def _wanted_ports(config: RuntimeConfig) -> list[WantedPort]:
    return [
        WantedPort(config.http_port, "the HTTP API", "--port", "PORT"),
        WantedPort(config.dashboard_port, "the Ray dashboard", "--dashboard-port", "PARLEY_DASHBOARD_PORT"),
    ]


def _start(config: RuntimeConfig, home: RuntimeHome, progress: Progress) -> RuntimeState:
    ports = find_ports(exclude=(config.http_port, config.dashboard_port))
    prepare_private_dir(config)
    ensure_ray_token(config)
    write_private(home.config_file, config.model_dump_json(indent=2) + "\n")
    if home.admin_key() != config.api_key:
        write_private(home.effective_key_file, config.api_key + "\n")
    state = _first_state(config, ports, str(ray_dir(config)))
    write_state(home, state)
    environment = cluster_environment(config, ports, os.environ)
    progress.doing("starting Ray")
    start_head(config, ports, home, environment)
    progress.doing("deploying the application")
    return _deploy(home, state, ports, environment)


def _first_state(config: RuntimeConfig, ports: RayPorts, sessions: str) -> RuntimeState:
    return RuntimeState(
        instance=config.instance,
        phase="starting",
        http_port=config.http_port,
        dashboard_port=config.dashboard_port,
        gcs_address=gcs_address(ports),
        ray_dir=sessions,
        started_at=time.time(),
    )


def _deploy(
    home: RuntimeHome, state: RuntimeState, ports: RayPorts, environment: Mapping[str, str]
) -> RuntimeState:
    daemons = tuple(
        fact for process in marked_processes(home.path) if (fact := fact_of(process)) and fact.name in DAEMONS
    )
    if {fact.name for fact in daemons} != DAEMONS:
        raise InternalError(
            f"Ray started and ended again; see {home.logs_dir / 'ray-start.log'} and {state.ray_dir}"
        )
    deployer = start_deployer(home.config_file, ports, home, environment)
    started = state.model_copy(update={"phase": "started", "processes": daemons, "deployer": deployer})
    write_state(home, started)
    return started
