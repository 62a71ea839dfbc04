"""A server process that a test owns: it may be stopped, killed, frozen and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.machine_pace import paced

_READY_S = 15.0
_UNPRIVILEGED = ("postgres", "nobody")


def unprivileged_user() -> str | None:
    """Whom to run servers as that refuse root; None when this process is not root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _UNPRIVILEGED if name in known)


def own_folder(name: str, user: str | None) -> Path:
    """A new folder that this user can reach and write; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix=f"parley-{name}-"))
    if user is not None:
        shutil.chown(folder, user)
    return folder


class StillRunning(RuntimeError):
    """A server did not end when it was told to."""


class OwnServer:
    """``answers`` says whether it can be used at ``url``; its output goes to ``server.log`` in the folder."""

    def __init__(
        self,
        url: str,
        command: Sequence[str],
        folder: Path,
        answers: Callable[[str], bool],
        user: str | None = None,
    ) -> None:
        self.url = url
        self._command = list(command)
        self._folder = folder
        self._answers = answers
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it answers; raises RuntimeError with its output when it ends instead."""
        deadline = time.monotonic() + paced(_READY_S)
        while True:
            with open(self._folder / "server.log", "ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                    user=self._user,
                    start_new_session=True,
                )
            while self._process.poll() is None:
                if self._answers(self.url):
                    return
                if time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"{self._command[0]} does not answer: {self.log()[-2000:]}")
                time.sleep(0.02)
            # After a kill the old one's last processes may still hold its files.
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._command[0]} ended: {self.log()[-2000:]}")
            time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGINT, patience_s: float | None = None) -> None:
        """Ask for its end and wait for it; nothing when it does not run.

        Raises StillRunning, with what its processes do, when it does not heed.
        """
        if self._process is None or self._process.poll() is not None:
            return
        patience_s = paced(_READY_S) if patience_s is None else patience_s
        self._process.send_signal(number)
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise StillRunning(f"{number.name} had no effect in {patience_s:g} s: {self.doings()}") from None

    def kill(self) -> None:
        """SIGKILL to it and all its processes, as a crash of the machine would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(paced(_READY_S))

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def log(self) -> str:
        """What it has said."""
        return (self._folder / "server.log").read_text(errors="replace")

    def doings(self) -> str:
        """State and place in the kernel of each of its processes, and its last words."""
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        lines = []
        for process in (first, *first.children(recursive=True)):
            with suppress(psutil.Error, OSError):
                place = Path(f"/proc/{process.pid}/wchan").read_text()
                lines.append(f"{process.pid} {process.status()} {place} {' '.join(process.cmdline())[:60]}")
        return "\n".join([*lines, self.log()[-2000:]])

    def remove(self) -> None:
        """End it and delete its files."""
        self.thaw()
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        """The first process first, so that it makes no new ones; its children are known before it is gone."""
        if self._process is None or self._process.poll() is not None:
            return
        first = psutil.Process(self._process.pid)
        children = set(first.children(recursive=True))
        first.send_signal(number)
        with suppress(psutil.NoSuchProcess):
            children |= set(first.children(recursive=True))
        for process in children:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
