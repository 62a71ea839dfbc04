"""The running cluster as an evaluation sees it: its FlowRunner, its gateway, its registry."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pydantic
import ray
from ray import serve
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OwnerDiedError,
    RayActorError,
    RayError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
    RequestCancelledError,
)

from actors.evaluation.patience import LostCall
from actors.gateway.open_gateway import open_gateway
from actors.ray_flags import NAMESPACE
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import CapacityError, InternalError, NotFound, ParleyError, ValidationError
from registries.contracts.generation import GenerationRequest, GenerationResult
from registries.contracts.runs import TERMINAL_EVENTS, RunOrder, RunResult

APP, RUNNER = "parley", "FlowRunner"
LOST = (
    RayActorError,
    WorkerCrashedError,
    NodeDiedError,
    OwnerDiedError,
    ObjectLostError,
    TaskCancelledError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
    grpc.aio.AioRpcError,
)
"""Errors after which a run will not end any more: its process, or the way to it, is gone."""
_CONFIG_IN_HOME = Path("run") / "config.json"


@dataclass(frozen=True, slots=True)
class LiveRuntime:
    """What the arms need. ``run`` raises CapacityError (queues full) and LostCall (the runner died)."""

    catalog: Catalog
    run: Callable[[RunOrder], Awaitable[RunResult]]
    generate: Callable[[GenerationRequest], Awaitable[GenerationResult]]


def find_config(given: Path | None, environment: dict[str, str]) -> Path:
    """The RuntimeConfig that ``parley up`` wrote: ``given``, else the one in PARLEY_HOME.

    A job has PARLEY_HOME where its cluster was started with it; otherwise the token's path, which every
    process of the cluster has, names the same folder.
    """
    if given is not None:
        return given
    home = environment.get("PARLEY_HOME")
    token = environment.get("RAY_AUTH_TOKEN_PATH")
    folder = Path(home) if home else Path(token).parent if token else Path.home() / ".parley"
    return folder / _CONFIG_IN_HOME


def read_config(path: Path) -> RuntimeConfig:
    """Raises NotFound without a running runtime, ValidationError for a file that is no configuration."""
    try:
        return RuntimeConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise NotFound(
            f"no runtime was found: {path} cannot be read ({error.strerror}). Start one with `parley up`, "
            "or name its configuration with --config",
            param="config",
        ) from None
    except pydantic.ValidationError:
        # the file holds keys: nothing of it is repeated
        raise ValidationError(
            f"{path} is no configuration of this version's runtime", param="config"
        ) from None


@asynccontextmanager
async def attached(config: RuntimeConfig, catalog: Catalog) -> AsyncIterator[LiveRuntime]:
    """Attach to the cluster, and let go of it in the end; NotFound when nothing of ours runs there."""
    try:
        ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), namespace=NAMESPACE, log_to_driver=False)
        handle = serve.get_deployment_handle(RUNNER, app_name=APP)
    except (ConnectionError, RuntimeError, RayError, RayServeException) as error:
        raise NotFound(
            f"no runtime was reached on a Ray cluster ({first_line(error)}). Start this by `ray job submit`",
            param="address",
        ) from error
    gateway = await open_gateway(config, catalog)
    try:
        yield LiveRuntime(catalog, RunCaller(handle), gateway.generate)
    finally:
        await gateway.aclose()
        # Serve's handles keep a thread that reports metrics; after the shutdown it would write a stack trace
        # into the job's log. A handle cannot be closed with all that were derived from it.
        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
        ray.shutdown()


class RunCaller:
    """A run by the FlowRunner that serves everybody; it commits the run when it takes it."""

    def __init__(self, handle: Any) -> None:
        self._runs = handle.options(method_name="run", stream=True)

    async def __call__(self, order: RunOrder) -> RunResult:
        """The whole result; cancelling stops the run, for the order says so."""
        batches = self._runs.remote(order)
        try:
            async for events in batches:
                for event in events:
                    if event.type in TERMINAL_EVENTS:
                        return RunResult.model_validate(event.data["result"])
        except asyncio.CancelledError as error:
            if not _cancelled_by_us():
                raise LostCall("the runner of this item was stopped") from error
            batches.cancel()
            raise
        except (RayError, RayServeException, grpc.aio.AioRpcError) as error:
            raise translated(error) from error
        raise LostCall("the runner ended the stream before the run's end")


def _cancelled_by_us() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def translated(error: BaseException) -> ParleyError:
    """Ray's exceptions in the words of our tree."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, ParleyError):
        return cause
    if isinstance(cause, BackPressureError):
        return CapacityError("the runners' queues are full", retry_after_s=1.0)
    if isinstance(cause, LOST):
        return LostCall("the runner of this item died")
    return InternalError(f"the run ended outside the error tree: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """The first line of a message, for an error of Ray's carries the remote stack behind it."""
    return next(iter(str(error).splitlines()), type(error).__name__)
