"""Ray's and Serve's exceptions in terms of our error tree: the one place that knows them."""

from __future__ import annotations

import asyncio

import grpc.aio
import ray.exceptions
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
    RequestCancelledError,
)

from actors.gateway.faults import FULL
from registries.contracts.engine import REPLICA_LOST
from registries.contracts.errors import CapacityError, Fault, ParleyError, ProviderError
from registries.specs import ModelSpec

BACKPRESSURE_RETRY_AFTER_S = 1.0
"""Told to callers when a queue is full and Serve gives no figure of its own."""

_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OwnerDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.TaskCancelledError,
    ReplicaUnavailableError,
    RequestCancelledError,
    # Of the call itself, whatever the other side has done; what it raised comes as it was raised.
    grpc.aio.AioRpcError,
    # Serve's router raises it when the request was cancelled on the replica's side, not by us.
    asyncio.CancelledError,
)


def from_ray(error: BaseException, spec: ModelSpec) -> ParleyError:
    """Translate; a replica's own error comes out as it was raised there.

    A lost replica is ``refused`` with context ``replica_lost`` (retryable, its breaker does not count it
    because Serve already replaces the replica); a full queue is CapacityError with retry_after_s.
    """
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    if isinstance(cause, ParleyError):
        return cause
    if isinstance(cause, BackPressureError):
        return CapacityError(
            f"the queue of model {spec.key!r} is full",
            retry_after_s=cause.retry_after_s or BACKPRESSURE_RETRY_AFTER_S,
            context={FULL: True},
        )
    if isinstance(cause, _LOST):
        return _refused(spec, "a replica was lost while it answered", {REPLICA_LOST: True})
    if isinstance(cause, DeploymentUnavailableError):
        return _refused(spec, "its deployment failed to start", {})
    if isinstance(cause, (RayServeException, ray.exceptions.RayError)) and cause is error:
        return _refused(spec, f"it could not be reached ({type(cause).__name__})", {REPLICA_LOST: True})
    failure = ProviderError(
        f"model {spec.key!r} failed unexpectedly ({type(cause).__name__})",
        Fault.BAD_RESPONSE,
        spec.provider,
        spec.key,
    )
    failure.__cause__ = error
    return failure


def _refused(spec: ModelSpec, why: str, context: dict[str, bool]) -> ProviderError:
    return ProviderError(
        f"model {spec.key!r}: {why}", Fault.REFUSED, spec.provider, spec.key, context=context
    )
