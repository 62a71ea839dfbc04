"""Word from Serve that the replica which this process is has to stop, when it is told and not at its end."""

from __future__ import annotations

from collections.abc import Callable

import ray


def replica_stop() -> Callable[[], bool]:
    """A probe for the replica that asks: whether Serve has told it to stop.

    Serve tells user code by ``__del__`` alone, and calls it when all ongoing calls have ended. A call that
    follows a run lasts as long as the run, so that this comes too late, or never: the controller kills at
    its deadline. What Serve sets first is private to it, hence this one place, and
    tests/unit/actors/running/test_replica_stop.py. Rejected: asking the controller or the dashboard (a
    call a second from each replica, and late whenever they are busy), and calls that give up after a while
    by themselves (each run that takes long would be read from the database for nothing).
    """
    worker = ray._private.worker.global_worker
    replica = worker.actors[worker.actor_id]._replica_impl
    # Read once now: a Ray without it shall fail at the start of a replica, not at its end.
    bool(replica._shutting_down)
    return lambda: bool(replica._shutting_down)
