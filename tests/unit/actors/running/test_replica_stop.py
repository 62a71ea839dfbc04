"""What Serve must go on doing for ``replica_stop``; with a real Serve: chaos/test_runner_stops.py."""

from __future__ import annotations

import ast
import inspect
import textwrap

from ray.serve._private.replica import Replica, ReplicaActor


def test_a_replica_that_is_told_to_stop_says_so_before_it_waits_for_anything() -> None:
    (stopping,) = ast.parse(textwrap.dedent(inspect.getsource(Replica._perform_graceful_shutdown))).body
    assert isinstance(stopping, ast.AsyncFunctionDef)
    assert ast.unparse(stopping.body[0]) == "self._shutting_down = True"


def test_the_actor_keeps_its_replica_where_we_look_for_it() -> None:
    assert "self._replica_impl: Replica = " in inspect.getsource(ReplicaActor.__init__)
