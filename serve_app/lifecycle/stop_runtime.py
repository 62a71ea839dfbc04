"""`parley down`: ends exactly what `parley up` started."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from serve_app.lifecycle.find_runtime import find_runtime
from serve_app.lifecycle.processes import Ended, end_processes, marked_processes, own_lineage
from serve_app.lifecycle.progress import Progress
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import forget_state


@dataclass(frozen=True, slots=True)
class StopReport:
    """``was_there`` is False when nothing had to be done."""

    was_there: bool
    ended: Ended

    @property
    def complete(self) -> bool:
        """Whether nothing is left."""
        return not self.ended.left

    def words(self) -> str:
        """What happened, for people."""
        if not self.was_there:
            return "nothing to stop: no runtime was started from here"
        count = len(self.ended.terminated)
        text = f"stopped the runtime: {count} processes ended ({summary(self.ended.terminated)})"
        if self.ended.killed:
            text += f"; {len(self.ended.killed)} of them had to be killed"
        if self.ended.left:
            names = ", ".join(f"{fact.name} (pid {fact.pid})" for fact in self.ended.left)
            text += f"; still there: {names}"
        return text


def stop_runtime(home: RuntimeHome, progress: Progress) -> StopReport:
    """End the runtime of this home; idempotent. Raises Conflict while another `up` or `down` is at work."""
    if not home.path.is_dir():
        return StopReport(False, Ended())
    with home.lock():
        return end_runtime(home, progress)


def end_runtime(home: RuntimeHome, progress: Progress) -> StopReport:
    """The same for a caller that holds the lock."""
    there = find_runtime(home).condition != "none"
    lineage = own_lineage()

    def ours() -> list:  # type: ignore[type-arg]
        return marked_processes(home.path, exclude=lineage)

    if there or ours():
        progress.doing("ending Ray, its workers, engines and HAProxy")
        there = True
    ended = end_processes(ours)
    if not ended.left:
        forget_state(home)
    return StopReport(there, ended)


def summary(names: tuple[str, ...]) -> str:
    """ "3 worker, 1 raylet": what ended, by kind, most frequent first."""
    kinds = Counter(_kind(name) for name in names)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none"


def _kind(name: str) -> str:
    if name.startswith("ray::"):
        return "worker"
    if name.startswith("ray-dashboard"):
        return "dashboard"
    if name.startswith("VLLM"):
        return "vLLM engine"
    return name
