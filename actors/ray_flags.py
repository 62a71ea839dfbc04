"""The one owner of every flag of Ray that the runtime relies on.

Ray reads most flags once, when a process starts. They therefore go into the environment of ``ray start``
on every node, and of every process that attaches to the cluster (drivers, ``ray job submit``), before
anything imports ray. Names that Ray does not know are ignored in silence: tests/integration/test_ray_flags.py
checks each against the installed Ray.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

from actors.free_ports import free_ports
from registries.contracts.config import RuntimeConfig

NAMESPACE = "parley"
LOGICAL_CPUS = 32
"""More logical CPUs than cores: our processes wait far more than they work, and Ray's default of one
CPU an actor would otherwise leave no room for replicas beside the experts on a small machine."""

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Of one call between replicas, or one item of its answer: several times the largest request we take."""

TOKEN_FILE = "ray.token"
INSTANCE_MARKER = "PARLEY_INSTANCE"

_BALANCE = "leastconn\n    no option splice-request"
"""Serve's default, and a second line for the same section of haproxy.cfg. With splice-request, which Serve
always writes, HAProxy 2.8 does not tell the replica that a client left when the request's body had come in a
packet of its own: the engine would work on for nobody."""
RAYLET, SERVE, PYTHON, AUTH = "raylet", "serve", "python", "auth"


@dataclass(frozen=True, slots=True)
class RayFlag:
    """One flag: where Ray reads it (raylet binary, Serve constants, package), and why we set it."""

    name: str
    read_by: str
    why: str


FLAGS: tuple[RayFlag, ...] = (
    RayFlag(
        "RAY_AUTH_MODE",
        AUTH,
        "the Jobs API runs any code: a token, never by accident of a default",
    ),
    RayFlag("RAY_AUTH_TOKEN_PATH", AUTH, "the token lives in PARLEY_HOME, not in the user's ~/.ray"),
    RayFlag("RAY_ENABLE_AUTO_CONNECT", PYTHON, "no call of Ray ever starts a second cluster by itself"),
    RayFlag("RAY_USAGE_STATS_ENABLED", PYTHON, "nothing is reported to anybody"),
    RayFlag(
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV",
        PYTHON,
        "`uv run` drivers would rebuild each worker's environment",
    ),
    RayFlag("RAY_process_group_cleanup_enabled", RAYLET, "a killed replica takes its engine with it"),
    RayFlag(
        "RAY_prestart_worker_first_driver",
        RAYLET,
        "else one worker of 140 MB a logical CPU",
    ),
    RayFlag("RAY_enable_worker_prestart", RAYLET, "the runtime primes the experts it wants itself"),
    RayFlag("RAY_num_workers_soft_limit", RAYLET, "primed expert workers stay: a cold one costs 1.5 s"),
    RayFlag("RAY_idle_worker_killing_time_threshold_ms", RAYLET, "the same, above the soft limit"),
    RayFlag("RAY_metrics_report_interval_ms", RAYLET, "/metrics is at most seconds old"),
    RayFlag("RAY_SERVE_ENABLE_HA_PROXY", SERVE, "2,100 requests/s, not the Python proxy's 275"),
    RayFlag("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", SERVE, "one HAProxy an instance: its files are its own"),
    RayFlag("RAY_SERVE_HAPROXY_SOCKET_PATH", SERVE, "the same; the default is for everybody"),
    RayFlag("RAY_SERVE_HAPROXY_SERVER_STATE_BASE", SERVE, "the same"),
    RayFlag("RAY_SERVE_HAPROXY_SERVER_STATE_FILE", SERVE, "the same"),
    RayFlag("RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH", SERVE, "the same"),
    RayFlag("RAY_SERVE_HAPROXY_METRICS_PORT", SERVE, "9101 may be another runtime's"),
    RayFlag("RAY_SERVE_HAPROXY_STATS_PORT", SERVE, "8404 may be another runtime's"),
    RayFlag(
        "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM",
        SERVE,
        "carries a line that Serve has no setting for: no splicing of request bodies (see _BALANCE)",
    ),
    RayFlag("RAY_SERVE_HAPROXY_NBTHREAD", SERVE, "four threads on two cores only fight"),
    RayFlag("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", SERVE, "8500 may be another runtime's"),
    RayFlag("RAY_SERVE_FALLBACK_PROXY_GRPC_PORT", SERVE, "9500 may be another runtime's"),
    RayFlag("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", SERVE, "30 s would hold every stop back"),
    RayFlag("RAY_SERVE_LOG_TO_STDERR", SERVE, "Serve's lines are in its files once, not twice"),
    RayFlag(
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD",
        SERVE,
        "all of ours is async: two threads a replica cost a hop a request, and a third of the throughput",
    ),
    RayFlag(
        "RAY_SERVE_USE_GRPC_BY_DEFAULT",
        SERVE,
        "a call between replicas goes straight to the other one, not as an object through Ray's core: a run"
        " costs its front door half as much",
    ),
    RayFlag("RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", SERVE, "a result may be larger than 4 MiB"),
)


@dataclass(frozen=True, slots=True)
class RayPorts:
    """The ports of one runtime besides its HTTP and dashboard ports."""

    gcs: int
    client: int
    metrics_export: int
    agent: int
    haproxy_metrics: int
    haproxy_stats: int
    fallback_http: int
    fallback_grpc: int

    def __post_init__(self) -> None:
        if self.gcs == 6379:
            raise ValueError("Ray's GCS must not take 6379: that is where Redis lives")


def find_ports(exclude: Collection[int] = ()) -> RayPorts:
    """Ports that are free on this machine and that nothing takes by chance before they are bound.

    ``exclude``: the runtime's other ports, which nobody holds yet either.
    """
    wanted = len(fields(RayPorts))
    found = [port for port in free_ports(wanted + len(exclude)) if port not in exclude]
    return RayPorts(*found[:wanted])


def private_dir(config: RuntimeConfig) -> Path:
    """Folder of Ray's sessions and HAProxy's sockets for this user and PARLEY_HOME; mode 0700.

    HAProxy takes socket paths of at most 97 bytes and Serve puts 57 for the node's id in them, hence a
    short folder in /tmp and not PARLEY_HOME itself.
    """
    owner = f"{os.getuid()}:{Path(config.home).resolve()}"
    return Path("/tmp") / f"parley-{hashlib.sha256(owner.encode()).hexdigest()[:10]}"


def ray_dir(config: RuntimeConfig) -> Path:
    """Ray's own folder. Ray opens it to everybody, again at each attachment: it must lie in a closed one."""
    return private_dir(config) / "r"


def token_path(config: RuntimeConfig) -> Path:
    """Where the cluster's token is (see actors.ray_token)."""
    return Path(config.home) / TOKEN_FILE


def ray_environment(config: RuntimeConfig, ports: RayPorts) -> dict[str, str]:
    """What every process of the cluster has in its environment, on every node, from before its start."""
    haproxy = private_dir(config)
    return {
        INSTANCE_MARKER: config.instance,
        "PATH": _program_path(),
        "PYTHONPATH": _python_path(),
        "LANGGRAPH_STRICT_MSGPACK": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path(config)),
        "RAY_ENABLE_AUTO_CONNECT": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_process_group_cleanup_enabled": "1",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        "RAY_num_workers_soft_limit": str(LOGICAL_CPUS),
        "RAY_idle_worker_killing_time_threshold_ms": "3600000",
        "RAY_metrics_report_interval_ms": "2000",
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if config.haproxy else "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.haproxy_stats),
        "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": _BALANCE,
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MAX_MESSAGE_BYTES),
    }


def head_arguments(config: RuntimeConfig, ports: RayPorts) -> list[str]:
    """Arguments after ``ray`` that start the head node; the process returns when the node is up."""
    return [
        "start",
        "--head",
        f"--port={ports.gcs}",
        f"--ray-client-server-port={ports.client}",
        f"--metrics-export-port={ports.metrics_export}",
        f"--dashboard-agent-listen-port={ports.agent}",
        # Any free port for workers: Ray's own range, 10002-19999, refuses every other port inside it.
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={config.dashboard_port}",
        f"--num-cpus={max(LOGICAL_CPUS, 4 * (os.cpu_count() or 1))}",
        f"--temp-dir={ray_dir(config)}",
        "--disable-usage-stats",
        # 85 MB to copy workers' output to drivers; ours is in files, and in the dashboard, without it.
        "--include-log-monitor=false",
        "--log-style=record",
        "--log-color=false",
    ]


def ray_command() -> list[str]:
    """The ``ray`` of this interpreter, so that the cluster has the packages that we have."""
    return [sys.executable, "-m", "ray.scripts.scripts"]


def gcs_address(ports: RayPorts, host: str = "127.0.0.1") -> str:
    """What ``ray.init(address=…)`` takes."""
    return f"{host}:{ports.gcs}"


def _python_path() -> str:
    """Our own root first: workers import the very packages that started the cluster, installed or not."""
    root = str(Path(__file__).resolve().parent.parent)
    inherited = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != root]
    return os.pathsep.join([root, *inherited])


def _program_path() -> str:
    """Our interpreter's folder first: `ray job submit -- python …` finds the Python that has the packages."""
    ours = str(Path(sys.executable).parent)
    inherited = [p for p in os.environ.get("PATH", os.defpath).split(os.pathsep) if p and p != ours]
    return os.pathsep.join([ours, *inherited])
