"""A second node of a test runtime on this machine: its raylet, and everything that runs below it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping

import psutil

from actors.free_ports import free_ports
from actors.ray_flags import NAMESPACE, ray_command
from registries.contracts.config import RuntimeConfig
from tests.machine_pace import paced
from tests.runtime_cluster import RunningCluster

_HEAD_ONLY = """
import sys, ray
from ray import serve
from ray.serve.config import HTTPOptions
ray.init(address=sys.argv[1], namespace=sys.argv[3], log_to_driver=False)
serve.start(http_options=HTTPOptions(host="0.0.0.0", port=int(sys.argv[2]), location="HeadOnly"))
"""

_FILL = """
import sys, ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(address=sys.argv[1], namespace=sys.argv[2], log_to_driver=False)
class Placeholder:
    def is_there(self):
        return True
((node, free),) = available_resources_per_node().items()
whole, rest = int(free["CPU"]), free["CPU"] % 1
shares = [whole, round(rest - 0.4, 2)] if rest >= 0.5 else [whole]
here = NodeAffinitySchedulingStrategy(node, soft=False)
for n, share in enumerate(shares):
    kept = {"lifetime": "detached", "name": f"placeholder-{n}"}
    made = ray.remote(Placeholder).options(num_cpus=share, scheduling_strategy=here, **kept).remote()
    ray.get(made.is_there.remote())
"""

_EXITS = """
import json, sys, ray
from ray.util.state import list_workers
ray.init(address=sys.argv[1], namespace=sys.argv[2], log_to_driver=False)
dead = list_workers(sys.argv[1], filters=[("is_alive", "=", False)], limit=10_000)
print(json.dumps({worker.pid: worker.exit_type for worker in dead}))
"""


def serve_on_the_head_only(gcs: str, config: RuntimeConfig, environment: Mapping[str, str]) -> None:
    """For running_cluster: two HAProxies of one machine cannot have the same port."""
    _run(_HEAD_ONLY, environment, gcs, str(config.http_port), NAMESPACE)


def fill_the_head(cluster: RunningCluster) -> None:
    """Leave no room for another runner on the only node there is: the next one must go to a second node."""
    _run(_FILL, cluster.environment, cluster.gcs_address, NAMESPACE)


def worker_exits(cluster: RunningCluster) -> dict[int, str]:
    """How each worker process that is gone has ended, in Ray's words, by its process id."""
    printed = _run(_EXITS, cluster.environment, cluster.gcs_address, NAMESPACE)
    told = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert len(told) == 1, printed[-2000:]
    return {int(pid): str(exit_type) for pid, exit_type in told[0].items()}


def _run(script: str, environment: Mapping[str, str], *arguments: str) -> str:
    words = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(words, env=dict(environment), capture_output=True, text=True, timeout=paced(30))
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


class SecondNode:
    """Joins a running cluster; ``remove`` is a machine that loses its power."""

    def __init__(self, cluster: RunningCluster) -> None:
        before = _raylets(cluster)
        metrics_port, agent_port = free_ports(2)
        words = [
            *ray_command(),
            "start",
            f"--address={cluster.gcs_address}",
            "--node-ip-address=127.0.0.1",
            f"--metrics-export-port={metrics_port}",
            f"--dashboard-agent-listen-port={agent_port}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--num-cpus=32",
            "--disable-usage-stats",
            "--include-log-monitor=false",
            "--log-style=record",
            "--log-color=false",
        ]
        done = subprocess.run(
            words, env=cluster.environment, capture_output=True, text=True, timeout=paced(45)
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        new = [process for process in _raylets(cluster) if process not in before]
        assert len(new) == 1, new
        self._raylet = new[0]

    def has(self, process: psutil.Process) -> bool:
        """Whether the process runs on this node."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return self._raylet in process.parents()
        return False

    def remove(self) -> int:
        """SIGKILL to all of it, the raylet first, so that it brings nothing back; how many processes."""
        below = self._raylet.children(recursive=True)
        self._raylet.kill()
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        gone, alive = psutil.wait_procs([self._raylet, *below], timeout=paced(5))
        assert not alive, alive
        return len(gone)


def _raylets(cluster: RunningCluster) -> list[psutil.Process]:
    deadline = time.monotonic() + paced(5)
    while True:
        found = []
        for process in cluster.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == "raylet":
                    found.append(process)
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
