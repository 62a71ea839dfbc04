"""Every flag of Ray that we set exists in the installed Ray, and does what we rely on."""

from __future__ import annotations

import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import ray

from actors.ray_flags import AUTH, FLAGS, PYTHON, RAYLET, SERVE, RayFlag, private_dir
from actors.ray_token import read_ray_token
from tests.polling import until
from tests.runtime_cluster import RunningCluster


def ray_folder() -> Path:
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def sources(read_by: str) -> list[Path]:
    folder = ray_folder()
    return {
        SERVE: [folder / "serve/_private/constants.py"],
        PYTHON: [
            folder / "_private/ray_constants.py",
            folder / "_private/auto_init_hook.py",
            folder / "_private/usage/usage_constants.py",
            folder / "_common/usage/usage_constants.py",
        ],
        AUTH: [folder / "_private/authentication/authentication_token_setup.py", folder / "_raylet.so"],
        RAYLET: [folder / "core/src/ray/raylet/raylet"],
    }[read_by]


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_ray_reads_the_flag(flag: RayFlag) -> None:
    # The raylet's flags are declared without the prefix that their variables have.
    name = flag.name.removeprefix("RAY_") if flag.read_by == RAYLET else flag.name
    found = [path for path in sources(flag.read_by) if path.exists() and name.encode() in path.read_bytes()]
    assert found, f"{flag.name} is not read by Ray {ray.__version__} any more: {flag.why}"


def test_the_version_is_the_one_that_these_were_checked_for() -> None:
    assert ray.__version__.startswith("2.60.")


def test_the_jobs_api_is_closed_without_the_token(cluster: RunningCluster) -> None:
    url = f"http://127.0.0.1:{cluster.config.dashboard_port}/api/jobs/"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=10)
    assert refused.value.code in (401, 403)
    token = read_ray_token(cluster.config)
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


async def test_haproxy_is_ours_alone(cluster: RunningCluster) -> None:
    # A reload puts a new process in the old one's place: look again until one is there long enough.
    ports: set[int] = set()

    def looked() -> bool:
        ports.clear()
        try:
            for proxy in (p for p in cluster.processes() if p.name() == "haproxy"):
                assert any(str(private_dir(cluster.config)) in part for part in proxy.cmdline())
                ports.update(c.laddr.port for c in proxy.net_connections("tcp") if c.status == "LISTEN")
        except psutil.NoSuchProcess:
            return False
        return cluster.config.http_port in ports

    await until(looked, 10, every_s=0.2)
    assert not ports & {9101, 8404}
    assert (private_dir(cluster.config).stat().st_mode & 0o077) == 0


def test_no_more_workers_than_we_asked_for(cluster: RunningCluster) -> None:
    idle = [p for p in cluster.processes() if "ray::IDLE" in " ".join(p.cmdline())]
    assert len(idle) <= 2 * cluster.config.expert_workers + 2
