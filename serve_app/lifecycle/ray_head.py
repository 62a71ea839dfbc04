"""Starts Ray's head node, and the process that deploys the application on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from actors.ray_flags import (
    RayPorts,
    gcs_address,
    head_arguments,
    private_dir,
    ray_command,
    ray_dir,
    ray_environment,
)
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import InternalError, ValidationError
from serve_app.lifecycle.processes import HOME_MARKER, fact_of
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import ProcessFact
from serve_app.variables import VARIABLES

HEAD_START_S = 90.0
"""`ray start --head` takes 5 s on two idle cores; a loaded machine takes several times that."""
_SECRET_NAMES = frozenset(
    {variable.name for variable in VARIABLES if variable.secret} | {"LITELLM_MASTER_KEY"}
)
_KEPT_SESSIONS = 2


class RayNotStarted(InternalError):
    """`ray start` failed or took too long; another try, with other ports, may do."""


def cluster_environment(
    config: RuntimeConfig, ports: RayPorts, inherited: Mapping[str, str]
) -> dict[str, str]:
    """What Ray's processes see: ours over the caller's, without keys (those travel in the config file).

    Ray's own settings of the caller (RAY_ADDRESS …) would point our processes at another cluster.
    """
    kept = {
        name: text
        for name, text in inherited.items()
        if not name.endswith("_API_KEY") and name not in _SECRET_NAMES and not name.startswith("RAY_")
    }
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    # SPT_NOENV: Ray's workers set their titles over their environment otherwise, and with it over the marker.
    return kept | ray_environment(config, ports) | {HOME_MARKER: config.home, "SPT_NOENV": "1"}


def prepare_private_dir(config: RuntimeConfig) -> Path:
    """Ray's folder, ours alone, with room for a new session; raises ValidationError when it is another's."""
    folder = private_dir(config)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or folder.is_symlink():
        raise ValidationError(
            f"{folder} is a link or belongs to somebody else; remove it", param="PARLEY_HOME"
        )
    os.chmod(folder, 0o700)
    for session in sorted(ray_dir(config).glob("session_2*"))[:-_KEPT_SESSIONS]:
        shutil.rmtree(session, ignore_errors=True)
    return folder


def start_head(
    config: RuntimeConfig, ports: RayPorts, home: RuntimeHome, environment: Mapping[str, str]
) -> None:
    """Run `ray start --head` to its end; raises RayNotStarted with the log's place when it fails."""
    log = home.logs_dir / "ray-start.log"
    # Loopback: a laptop's address changes under a running cluster, and nothing of Ray is for others.
    command = [*ray_command(), *head_arguments(config, ports), "--node-ip-address=127.0.0.1"]
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=HEAD_START_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RayNotStarted(f"Ray did not start within {HEAD_START_S:.0f} s; see {log}") from None
    if done.returncode != 0:
        status = f"exit status {done.returncode}"
        raise RayNotStarted(f"Ray did not start ({status}): {last_line(log)} (all of it: {log})")


def start_deployer(
    config_file: Path, ports: RayPorts, home: RuntimeHome, environment: Mapping[str, str]
) -> ProcessFact:
    """Start `python -m serve_app.app`, which deploys everything on the running head."""
    with (home.logs_dir / "deploy.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serve_app.app", "--config", str(config_file)],
            env=dict(environment) | {"RAY_ADDRESS": gcs_address(ports)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    fact = fact_of(psutil.Process(process.pid))
    if fact is None:
        raise InternalError(f"the deploying process ended at once; see {home.logs_dir / 'deploy.log'}")
    return fact


def last_line(log: Path) -> str:
    """The last line with words in it: what went wrong is said last."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "no log"
    words = [line.strip() for line in lines if any(c.isalnum() for c in line)]
    return words[-1][:500] if words else "no reason given"
