"""One real runtime for all integration and chaos tests: Ray, HAProxy, the API, scripted models."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from actors.free_ports import free_ports
from actors.ray_flags import RayPorts, find_ports, gcs_address, private_dir, ray_environment
from actors.ray_token import ensure_ray_token
from registries.contracts.config import BreakerConfig, LeaseConfig, RuntimeConfig
from serve_app.lifecycle.processes import end_processes, marked_processes, own_lineage
from serve_app.lifecycle.ray_head import (
    RayNotStarted,
    cluster_environment,
    prepare_private_dir,
    start_deployer,
    start_head,
)
from serve_app.lifecycle.runtime_home import RuntimeHome, write_private
from tests.machine_pace import paced
from tests.scripted_models import SCRIPTED_MODELS, SCRIPTED_TIERS

API_UP_S = 90.0
"""Beside other work on two cores; an idle machine takes 15 s."""
BREAKER_REST_S = 5.0
"""Long enough for a test to look at an open breaker from several processes, on a slow machine too."""


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """Facts about the runtime under test, and the few things that many tests do with it."""

    base_url: str
    api_key: str
    config: RuntimeConfig
    home: Path
    gcs_address: str
    environment: dict[str, str]
    start_s: float
    """Seconds from nothing to an API that answers."""

    @property
    def headers(self) -> dict[str, str]:
        """The header that every route but the open ones needs."""
        return {"X-API-Key": self.api_key}

    def processes(self) -> list[psutil.Process]:
        """Every living process of this runtime."""
        return marked_processes(self.home, exclude=own_lineage())

    def logs(self, component: str) -> str:
        """The JSON lines that a component has written."""
        path = self.home / "logs" / f"{component}.jsonl"
        return path.read_text(encoding="utf-8") if path.exists() else ""


def cluster_config(home: Path, **changes: Any) -> RuntimeConfig:
    """The configuration of a test runtime: scripted models alone, free ports, spans to a file."""
    http_port, dashboard_port = free_ports(2)
    settings: dict[str, Any] = {
        "home": str(home),
        "instance": uuid.uuid4().hex,
        "http_port": http_port,
        "dashboard_port": dashboard_port,
        "api_key": f"test-{uuid.uuid4().hex}",
        "default_provider": "scripted",
        "models": tuple(str(m["key"]) for m in SCRIPTED_MODELS if m["engine"] == "scripted"),
        "extra_models": SCRIPTED_MODELS,
        "tiers": SCRIPTED_TIERS,
        "breaker": BreakerConfig(max_failures=3, timeout_s=BREAKER_REST_S),
        # Short, so that runs of killed runners go on soon, and not so short that a runner which gets no
        # processor for a while loses them; what parks runs is tested without a cluster.
        "lease": LeaseConfig(ttl_s=paced(1.5), scan_s=0.5, max_deaths=50),
        "trace_file": "spans.jsonl",
    }
    return RuntimeConfig(**{**settings, **changes})


@contextmanager
def running_cluster(
    before_deploying: Callable[[str, RuntimeConfig, dict[str, str]], None] = lambda gcs, config, env: None,
    **changes: Any,
) -> Iterator[RunningCluster]:
    """Start a runtime as the CLI does, in a PARLEY_HOME of its own; everything is ended and removed after.

    ``before_deploying`` is called with the address of Ray's head, the configuration and the environment.
    """
    home = RuntimeHome(Path(tempfile.mkdtemp(prefix="parley-test-")))
    config = cluster_config(home.path, **changes)
    chosen = (config.http_port, config.dashboard_port)
    ports = find_ports(exclude=chosen)
    home.ensure()
    prepare_private_dir(config)
    ensure_ray_token(config)
    write_private(home.config_file, config.model_dump_json())
    environment = _environment(config, ports)
    started = time.monotonic()
    try:
        try:
            start_head(config, ports, home, environment)
        except RayNotStarted as error:
            # As start_runtime does it, and said: a second failure is one.
            print(f"\n{error}\n{(home.logs_dir / 'ray-start.log').read_text(errors='replace')[-3000:]}")
            end_processes(lambda: marked_processes(home.path, exclude=own_lineage()))
            ports = find_ports(exclude=chosen)
            environment = _environment(config, ports)
            start_head(config, ports, home, environment)
        before_deploying(gcs_address(ports), config, environment)
        start_deployer(home.config_file, ports, home, environment)
        base_url = f"http://127.0.0.1:{config.http_port}"
        _await_api(base_url, home)
        took = time.monotonic() - started
        yield RunningCluster(
            base_url, config.api_key, config, home.path, gcs_address(ports), environment, took
        )
    finally:
        ended = end_processes(lambda: marked_processes(home.path, exclude=own_lineage()))
        if not os.environ.get("PARLEY_TEST_KEEP"):
            shutil.rmtree(home.path, ignore_errors=True)
            shutil.rmtree(private_dir(config), ignore_errors=True)
        assert not ended.left, f"processes outlived the runtime: {ended.left}"


def _environment(config: RuntimeConfig, ports: RayPorts) -> dict[str, str]:
    environment = cluster_environment(config, ports, os.environ)
    # Measuring coverage in Ray's processes needs these; a real start drops what is not Parley's setting.
    kept = {name: value for name, value in os.environ.items() if name.startswith("PARLEY_COVERAGE_")}
    return environment | kept


def _await_api(base_url: str, home: RuntimeHome) -> None:
    deadline = time.monotonic() + paced(API_UP_S)
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{base_url}/api/health", timeout=2) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    log = home.logs_dir / "deploy.log"
    tail = log.read_text(errors="replace")[-3000:] if log.exists() else "no deploy.log"
    raise AssertionError(f"the API did not answer within {API_UP_S:g} s\n{tail}")


@contextmanager
def attached_to(cluster: RunningCluster) -> Iterator[None]:
    """This process as a driver of the cluster (Serve handles, actors); one at a time."""
    before = dict(os.environ)
    ours = {k: v for k, v in cluster.environment.items() if k.startswith("RAY_")}
    os.environ.update(ours)
    import ray
    from ray._private import auto_init_hook
    from ray._private.authentication_test_utils import reset_auth_token_state

    # Ray remembers mode and token from its import, which collecting the tests may have done long before.
    reset_auth_token_state()
    ray.init(address=cluster.gcs_address, namespace="parley", log_to_driver=False)
    try:
        yield
    finally:
        # Routers of handles live on in threads; each would start a Ray of its own for its next report.
        auto_init_hook.enable_auto_connect = False
        ray.shutdown()
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update({k: v for k, v in before.items() if k in ours})


__all__ = [
    "RunningCluster",
    "attached_to",
    "cluster_config",
    "ray_environment",
    "running_cluster",
]
