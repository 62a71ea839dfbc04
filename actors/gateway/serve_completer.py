"""A model behind a Serve deployment (ModelReplica or RemoteAdapter), as a Completer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from ray import serve

from actors.gateway.faults import NOT_LOADED, still_loading
from actors.gateway.ray_errors import from_ray
from actors.gateway.serve_readiness import ServeReadiness
from actors.readiness import cause_of
from registries.contracts.engine import REPLICA_LOST, EngineCall, EngineResult
from registries.contracts.errors import CapacityError, Fault, ParleyError, ProviderError
from registries.contracts.generation import GenerationChunk
from registries.specs import ModelSpec


class ServeCompleter:
    """Calls ``complete`` and ``stream`` of one deployment; ``stream`` there yields lists of items.

    Raises CapacityError with context ``loading`` while no replica runs, ProviderError(refused) when the
    application failed to start, CapacityError that is not retryable when the cluster can never hold it.
    Cancelling a call, or closing the stream, cancels the request at its replica.
    ``misplaced`` says why the cluster can never hold the model (None: it can); it runs in a thread.
    """

    def __init__(
        self,
        spec: ModelSpec,
        app_name: str,
        deployment: str,
        readiness: ServeReadiness,
        get_handle: Callable[[str, str], Any] = serve.get_deployment_handle,
        misplaced: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._spec = spec
        self._app = app_name
        self._deployment = deployment
        self._readiness = readiness
        self._get_handle = get_handle
        self._misplaced = misplaced
        self._handle: Any = None
        self._streaming: Any = None
        self._ready = False
        self._live: dict[str, Any] = {}

    async def complete(self, call: EngineCall) -> EngineResult:
        """See Completer."""
        await self._ensure_ready()
        response = self._handle.complete.remote(call)
        self._live[call.request_id] = response
        try:
            answer: EngineResult = await response
            return answer
        except asyncio.CancelledError as error:
            response.cancel()
            self._ready = False
            if _cancelled_by_caller():
                raise
            raise self._translated(error) from error
        except Exception as error:
            raise self._translated(error) from error
        finally:
            self._live.pop(call.request_id, None)

    async def stream(self, call: EngineCall) -> AsyncIterator[GenerationChunk | EngineResult]:
        """See Completer."""
        await self._ensure_ready()
        responses = self._streaming.stream.remote(call)
        self._live[call.request_id] = responses
        ended = False
        try:
            async for items in responses:
                for item in items:
                    yield item
            ended = True
        except asyncio.CancelledError as error:
            self._ready = False
            if _cancelled_by_caller():
                raise
            ended = True
            raise self._translated(error) from error
        except Exception as error:
            # cancel() of a call that already failed raises that failure again, in the place of ours.
            ended = True
            raise self._translated(error) from error
        finally:
            self._live.pop(call.request_id, None)
            if not ended:
                responses.cancel()

    async def abort(self, request_id: str) -> None:
        """See Completer; cancels the request at its replica."""
        response = self._live.pop(request_id, None)
        if response is not None:
            response.cancel()

    async def _ensure_ready(self) -> None:
        if self._ready:
            return
        app = await self._readiness.state(self._app)
        if app.state == "failed":
            raise ProviderError(
                f"model {self._spec.key!r} failed to load: {cause_of(app.message)}",
                Fault.REFUSED,
                self._spec.provider,
                self._spec.key,
                context={REPLICA_LOST: True, NOT_LOADED: True},
            )
        if app.state == "absent" and (why := await asyncio.to_thread(self._misplaced)):
            misfit = CapacityError(
                f"model {self._spec.key!r} cannot be loaded here: {why}", param="model_key"
            )
            misfit.retryable = False  # the cluster would have to change first
            raise misfit
        if app.state != "ready":
            raise still_loading(self._spec, "; /api/ready shows its progress")
        if self._handle is None:
            await self._open_handle()
        self._ready = True

    async def _open_handle(self) -> None:
        try:
            # In a thread: Serve asks its controller, synchronously, whether the deployment exists.
            self._handle = await asyncio.to_thread(self._get_handle, self._deployment, self._app)
        except Exception as error:
            raise from_ray(error, self._spec) from error
        self._streaming = self._handle.options(stream=True)

    def _translated(self, error: BaseException) -> ParleyError:
        translated = from_ray(error, self._spec)
        if translated.context.get(REPLICA_LOST):
            # The next try looks at Serve's status first instead of queueing for a replica that is not there.
            self._ready = False
        return translated


def _cancelled_by_caller() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
