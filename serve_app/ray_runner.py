"""The FlowRunner deployment as RunDispatch sees it: one hop, Ray's exceptions turned into ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio
import ray.exceptions
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
)

from registries.contracts.errors import CapacityError, ParleyError
from registries.contracts.runs import RunEvent, RunOrder
from serve_app.errors import as_parley_error
from serve_app.run_ports import RunnerLost

_RETRY_AFTER_S = 1.0
_CANCEL_S = 5.0
"""A runner that is slower learns of the cancellation when it renews its lease."""
_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OwnerDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.TaskCancelledError,
    ReplicaUnavailableError,
    RequestCancelledError,
    grpc.aio.AioRpcError,
    # Serve raises it here when the replica's side was cancelled; our own cancelling is told apart below.
    asyncio.CancelledError,
)


class RayRunner:
    """Calls FlowRunner through its Serve handle. Closing the iterator of ``run`` cancels the call there."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._runs = handle.options(method_name="run", stream=True)
        self._results = handle.options(method_name="result", stream=True)
        self._wakes = handle.options(method_name="wake")

    async def wake(self) -> None:
        """See serve_app.run_ports.Runner."""
        try:
            await self._wakes.remote()
        except asyncio.CancelledError as error:
            if not _cancelled_by_us():
                raise _translated(error) from error
            raise
        except Exception as error:
            raise _translated(error) from error

    async def cancel(self, run_id: str) -> None:
        """See serve_app.run_ports.Runner. All replicas are asked: only the store knows who holds a run."""
        try:
            told = self._handle.broadcast("cancel", run_id)
            await told.results_async(timeout_s=_CANCEL_S, return_exceptions=True)
        except TimeoutError as error:
            raise RunnerLost("not every runner answered") from error
        except Exception as error:
            raise _translated(error) from error

    def run(self, asked: RunOrder | str) -> AsyncIterator[Sequence[RunEvent]]:
        """See serve_app.run_ports.Runner."""
        return _items(self._runs.remote(asked))

    def result(self, asked: RunOrder | str) -> AsyncIterator[bytes]:
        """See serve_app.run_ports.Runner."""
        return _items(self._results.remote(asked))


async def _items(call: Any) -> AsyncIterator[Any]:
    """The items of a streamed call; closing the iterator cancels the call."""
    try:
        async for item in call:
            yield item
    except GeneratorExit:
        call.cancel()
        raise
    except asyncio.CancelledError as error:
        if not _cancelled_by_us():
            raise _translated(error) from error
        call.cancel()
        raise
    except Exception as error:
        # Not cancelled here: cancel() of a call that already failed raises that failure again.
        raise _translated(error) from error


def _cancelled_by_us() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _translated(error: BaseException) -> Exception:
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, ParleyError):
        return cause
    if isinstance(cause, BackPressureError):
        return CapacityError(
            "the queue of runs is full; try again", retry_after_s=cause.retry_after_s or _RETRY_AFTER_S
        )
    if isinstance(cause, DeploymentUnavailableError):
        return CapacityError("no runner could be started; /api/ready says why", retry_after_s=_RETRY_AFTER_S)
    if isinstance(cause, _LOST):
        return RunnerLost(type(cause).__name__)
    return as_parley_error(error)
