"""The processes of one runtime, found by a marker in their environment and ended with a deadline."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from actors.ray_flags import INSTANCE_MARKER
from serve_app.lifecycle.runtime_state import ProcessFact

HOME_MARKER = "PARLEY_HOME"
_POLL_S = 0.1
_RESURRECTORS = frozenset({"raylet", "gcs_server"})


@dataclass(frozen=True, slots=True)
class Ended:
    """What ending did: names with counts are for people."""

    terminated: tuple[str, ...] = ()
    killed: tuple[str, ...] = ()
    left: tuple[ProcessFact, ...] = ()


def marked_processes(home: Path, exclude: frozenset[int] = frozenset()) -> list[psutil.Process]:
    """Living processes that a runtime of this home started, wherever they were started from since.

    A process is ours when its environment has an instance marker and this home: Ray's daemons, workers,
    HAProxy and engines inherit both. Other users' processes are never looked into.
    """
    wanted, uid = str(home), os.getuid()
    found = []
    for process in psutil.process_iter():
        if process.pid in exclude:
            continue
        try:
            if process.uids().real != uid or process.status() == psutil.STATUS_ZOMBIE:
                continue
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        if INSTANCE_MARKER in environment and environment.get(HOME_MARKER) == wanted:
            found.append(process)
    return found


def fact_of(process: psutil.Process) -> ProcessFact | None:
    """The process as it is written down; None when it is gone."""
    try:
        return ProcessFact(pid=process.pid, started=process.create_time(), name=process.name())
    except psutil.Error:
        return None


def is_alive(fact: ProcessFact, instance: str) -> bool:
    """Whether exactly this process still lives: its pid, with this runtime's marker.

    Start times would do as well, were they not shifted by every step of the machine's clock.
    """
    try:
        process = psutil.Process(fact.pid)
        living = process.status() != psutil.STATUS_ZOMBIE
        return living and process.environ().get(INSTANCE_MARKER) == instance
    except (psutil.Error, OSError):
        return False


def own_lineage() -> frozenset[int]:
    """This process and its parents: never to be ended by it."""
    me = psutil.Process()
    return frozenset({me.pid, *(parent.pid for parent in me.parents())})


def end_processes(
    find: Callable[[], list[psutil.Process]], *, term_s: float = 3.0, total_s: float = 12.0
) -> Ended:
    """End all that ``find`` finds, again and again, until it finds none: TERM first, KILL after ``term_s``.

    Ray's two daemons are killed at once: they would bring back what ends, they take 10 s over a TERM,
    and they hold nothing that outlives them. ``find`` is asked anew each round, because a dying cluster
    still starts workers. Whatever outlives ``total_s`` is answered in ``left``.
    """
    started = time.monotonic()
    terminated: dict[tuple[int, float], str] = {}
    killed: dict[tuple[int, float], str] = {}
    while living := find():
        elapsed = time.monotonic() - started
        if elapsed > total_s:
            break
        for process in living:
            _signal(process, terminated, killed, late=elapsed > term_s)
        time.sleep(_POLL_S)
    left = tuple(fact for process in find() if (fact := fact_of(process)))
    return Ended(tuple(terminated.values()), tuple(killed.values()), left)


def _signal(
    process: psutil.Process,
    terminated: dict[tuple[int, float], str],
    killed: dict[tuple[int, float], str],
    late: bool,
) -> None:
    """TERM once, later KILL; psutil checks the start time before it signals."""
    fact = fact_of(process)
    if fact is None:
        return
    key = (fact.pid, fact.started)
    try:
        if fact.name in _RESURRECTORS:
            process.kill()
            terminated[key] = fact.name
        elif late:
            process.kill()
            killed[key] = fact.name
        elif key not in terminated:
            process.terminate()
            terminated[key] = fact.name
    except psutil.Error:
        return
