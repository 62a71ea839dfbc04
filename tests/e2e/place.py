"""A PARLEY_HOME and ports of its own, and a shell in which commands are typed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from actors.free_ports import free_ports
from tests.machine_pace import paced

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
_OURS = ("PARLEY_", "RAY_", "MAKE", "MFLAGS", "PROMPT", "FLOW", "PORT")


class Place:
    """What one user of this machine has."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.port, self.dashboard_port = free_ports(2)
        kept = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(_OURS) or name.startswith("PARLEY_COVERAGE")
        }
        self.environment = {
            **kept,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PARLEY_HOME": str(home),
            "PORT": str(self.port),
            "PARLEY_DASHBOARD_PORT": str(self.dashboard_port),
            **settings,
        }

    def type(self, line: str, timeout_s: float = 200, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one line of bash at the root of the repository; ``timeout_s`` as the usual machine counts."""
        return subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{line}"],
            cwd=ROOT,
            env={**self.environment, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=paced(timeout_s),
        )

    def good(self, line: str, **env: str) -> str:
        """The same for a line that must succeed; its stdout."""
        done = self.type(line, **env)
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def curl(
        self, path: str, body: Any = None, key: str | None = None, raw: str | None = None
    ) -> tuple[int, str]:
        """Status and body of a request, with the key of this home unless another is given ("" for none)."""
        words = ["curl", "-sN", "-w", "\n%{http_code}", f"http://127.0.0.1:{self.port}{path}"]
        sent = raw if raw is not None else json.dumps(body) if body is not None else None
        if sent is not None:
            words += ["-H", "Content-Type: application/json", "--data-binary", sent]
        line = shlex.join(words)
        if key is None:
            line += ' -H "X-API-Key: $(cat "$PARLEY_HOME/admin.key")"'
        elif key:
            line += " -H " + shlex.quote(f"X-API-Key: {key}")
        text, _, status = self.good(line).rpartition("\n")
        return int(status), text

    def processes(self) -> list[str]:
        """Living processes with an instance's mark and this home, wherever they are."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                living = process.status() != psutil.STATUS_ZOMBIE
            except (psutil.Error, OSError):
                continue
            if (
                living
                and "PARLEY_INSTANCE" in environment
                and environment.get("PARLEY_HOME") == str(self.home)
            ):
                found.append(f"{process.name()} ({process.pid})")
        return found

    def listening(self) -> set[int]:
        """Ports that this home's processes listen on."""
        found: set[int] = set()
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.pid is None:
                continue
            try:
                environment = psutil.Process(connection.pid).environ()
            except (psutil.Error, OSError):
                continue
            if environment.get("PARLEY_HOME") == str(self.home):
                found.add(connection.laddr.port)
        return found


def all_listeners() -> set[int]:
    """Every port that anybody listens on."""
    return {c.laddr.port for c in psutil.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN}


def sse(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Events of a stream as curl shows it."""
    found = []
    for block in text.split("\n\n"):
        said = [line for line in block.strip().splitlines() if ": " in line and not line.startswith(":")]
        lines = dict(line.split(": ", 1) for line in said)
        if "data" in lines:
            found.append((lines.get("event", "message"), json.loads(lines["data"])))
    return found
