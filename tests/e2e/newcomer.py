"""Somebody who types the README's commands in a checkout."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import psutil

from tests.e2e.place import ROOT, Place

_ASSIGNMENT = re.compile(r"([A-Z]+)=\$\(.*\)$")


class Newcomer:
    """A home and ports of their own instead of ~ and the defaults; ``place`` is the runtime's."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.place = Place(home / ".parley", HOME=str(home))
        # The commands that `make` puts there, whichever environment runs the tests.
        self.place.environment["PATH"] = f"{ROOT / '.venv' / 'bin'}:{self.place.environment['PATH']}"
        self._preamble: list[str] = []

    def type(self, text: str, timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
        """Run one line; variables that it sets stay for the next ones."""
        line = text.replace("localhost:8001", f"localhost:{self.place.port}")
        line = line.replace(":8265", f":{self.place.dashboard_port}")
        line = line.replace("/tmp/evaluation", str(self.home / "evaluation"))
        kept = _ASSIGNMENT.match(text)
        shown = [f'printf %s "${kept[1]}"'] if kept else []
        done = self.place.type("\n".join([*self._preamble, line, *shown]), timeout_s)
        if kept:
            # Its value, for the command behind it may begin another run.
            self._preamble.append(f"{kept[1]}={shlex.quote(done.stdout)}")
        return done

    def processes(self) -> list[psutil.Process]:
        """What runs with this newcomer's home in its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PARLEY_HOME") == str(self.place.home):
                    found.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found
