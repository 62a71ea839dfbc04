"""One expert as one Ray task: it runs a node in a pooled worker, streams its tokens, returns its result.

Workers are pooled by Ray: all experts share the runner's environment, so a worker that has run one keeps its
gateway (one a process, see ``_worker``) and the next expert finds it warm. Ray ends a job's idle workers
with the job: the process that deployed must stay (see actors.runtime).
"""

from __future__ import annotations

import asyncio
import functools
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from actors.gateway.open_gateway import open_gateway
from actors.running.nodes_here import AtHome
from actors.running.patient_generator import PatientGenerator
from actors.running.ports import GpuResources, SystemClock
from actors.telemetry.logs import bound
from actors.telemetry.process_telemetry import open_telemetry
from actors.telemetry.traced_generator import TracedGenerator
from actors.telemetry.tracing import current_traceparent
from flows.node_context import NodePorts
from flows.nodes.run_payload import run_payload
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.runs import EventType, NodeResult
from registries.loader import load_catalog

CANCEL_POLL_S = 0.05
"""Ray cancels a task by an exception in its main thread, which only arrives between waits this long."""

Item = dict[str, Any]
"""What the task yields: ``{"events": [[type, node, data, attempt] …]}``, last ``{"result": NodeResult}``."""


def expert_task(config_json: str, payload: Mapping[str, Any]) -> Iterator[Item]:
    """Run the node of ``payload`` (flows.node_task.NodeTask as JSON); a generator task.

    ``{"warm_s": seconds}`` instead of a node opens the worker, holds it that long and yields its pid.
    Cancelling (ray.cancel) cancels the node, which aborts its model call.
    """
    worker = _worker(config_json)
    if "warm_s" in payload:
        time.sleep(float(payload["warm_s"]))
        yield {"pid": os.getpid()}
        return
    outbox: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
    work = worker.submit(payload, outbox)
    try:
        yield from _drained(outbox)
        yield {"result": work.result().model_dump(mode="json")}
    finally:
        work.cancel()


def _drained(outbox: queue.SimpleQueue[Item | None]) -> Iterator[Item]:
    while True:
        try:
            item = outbox.get(timeout=CANCEL_POLL_S)
        except queue.Empty:
            continue
        if item is None:
            return
        yield item


@dataclass(frozen=True, slots=True)
class _Outbox:
    """EventSink into the queue that the task's main thread empties."""

    items: queue.SimpleQueue[Item | None]

    async def emit(
        self, type: EventType, node: str | None, data: Mapping[str, Any], attempt: int = 1
    ) -> None:
        self.items.put({"events": [[type, node, dict(data), attempt]]})


class _Worker:
    """What a worker process keeps between experts: an event loop in a thread, gateway, catalog."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="expert-loop", daemon=True).start()
        self._catalog: Catalog = load_catalog(config)
        self._telemetry = open_telemetry(config, "expert")
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    async def _open(self) -> None:
        self._gateway = await open_gateway(
            self._config, self._catalog, observer=self._telemetry.observer, traceparent=current_traceparent
        )

    def submit(
        self, payload: Mapping[str, Any], outbox: queue.SimpleQueue[Item | None]
    ) -> Future[NodeResult]:
        """Start the node on the loop; its last word in the outbox is None."""
        return asyncio.run_coroutine_threadsafe(self._run(payload, outbox), self._loop)

    async def _run(self, payload: Mapping[str, Any], outbox: queue.SimpleQueue[Item | None]) -> NodeResult:
        ports = NodePorts(
            generator=TracedGenerator(PatientGenerator(self._gateway)),
            events=_Outbox(outbox),
            resources=GpuResources(self._config.max_vram_usage_gb),
            history=AtHome(),
            placement=AtHome(),
            clock=SystemClock(),
        )
        facts = {name: str(payload.get(name, "")) for name in ("request_id", "run_id")}
        try:
            with bound(**facts):
                return await run_payload(payload, ports, self._catalog)
        finally:
            outbox.put(None)


@functools.lru_cache(maxsize=1)
def _worker(config_json: str) -> _Worker:
    """The process's one worker: making it costs 1 s and a Serve router, so it lives as long as that."""
    return _Worker(RuntimeConfig.model_validate_json(config_json))
