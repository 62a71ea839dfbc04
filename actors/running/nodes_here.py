"""Nodes that were meant for another process, run in this one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from actors.running.ports import GpuResources, SystemClock
from flows.node_context import NodePorts
from flows.nodes.run_payload import run_payload
from flows.ports import EventSink, Generator
from registries.catalog import Catalog
from registries.contracts.errors import InternalError
from registries.contracts.generation import Message
from registries.contracts.runs import NodeResult


class AtHome:
    """What only the runner has: an expert asks models, it neither places nodes nor reads conversations."""

    async def run_node(self, payload: Mapping[str, Any]) -> NodeResult:
        """Refused: raises InternalError."""
        raise InternalError("an expert cannot place a node elsewhere")

    async def read(self, conversation_id: str, limit: int) -> list[Message]:
        """Refused: raises InternalError."""
        raise InternalError("an expert cannot read a conversation")


def nodes_here(
    generator: Generator, events: EventSink, resources: GpuResources, catalog: Catalog
) -> Callable[[Mapping[str, Any]], Awaitable[NodeResult]]:
    """Runs a node as a worker would, with a worker's ports; ``events`` is the run's own sink."""
    ports = NodePorts(
        generator=generator,
        events=events,
        resources=resources,
        history=AtHome(),
        placement=AtHome(),
        clock=SystemClock(),
    )

    async def run(payload: Mapping[str, Any]) -> NodeResult:
        return await run_payload(payload, ports, catalog)

    return run
