"""Runs of real flows over a store, and forks of them."""

from __future__ import annotations

from typing import Any

from actors.running.checkpoint_saver import CheckpointSaver
from actors.running.fork_state import fork_state
from actors.running.state_document import state_document
from actors.stores.store import CheckpointStore
from flows.builder import FlowGraphs
from flows.execution import execute_flow
from registries.catalog import Catalog
from registries.contracts.runs import Decision, RunOrder, RunRequest, RunResult
from registries.specs import FlowSpec
from tests.store_writer import StoreWriter
from tests.unit.actors.running.checkpoint_shelf import CheckpointShelf
from tests.unit.flows.fakes import PACKAGE, QUESTION, Answer, World, arithmetic, catalog_with
from tests.unit.flows.test_builder import SAYS, saying
from tests.unit.flows.test_graph_plan import spec_of

FLOWS = ("challenge", "multi_perspective", "linear", "reviewed_challenge")


class Lab:
    """One flow, its store and its graphs; every run has a world of its own."""

    def __init__(
        self,
        flow: FlowSpec | str,
        answer: Answer = arithmetic,
        store: CheckpointStore | None = None,
        **request: Any,
    ) -> None:
        self.flow = PACKAGE.flows.get(flow) if isinstance(flow, str) else flow
        self.answer, self.request = answer, request
        self.store = store or CheckpointShelf()
        self.graphs = FlowGraphs(_catalog(self.flow))
        self.world = World()
        self.path: list[str] = []
        """Nodes in the order in which ``finish`` started them."""

    def order(self, run_id: str) -> RunOrder:
        asked = RunRequest(**{"prompt": QUESTION, "flow_type": self.flow.name, **self.request})
        return RunOrder(
            run_id=run_id,
            request_id=f"req-{run_id}",
            request=asked,
            deadline_s=30.0,
            user=f"user of {run_id}",
        )

    async def run(self, run_id: str, decision: Decision | None = None) -> RunResult:
        """One attempt; ``self.world`` is its world."""
        self.world = World(self.answer, self.graphs.catalog)
        saver = CheckpointSaver(self.store, StoreWriter(self.store))
        return await execute_flow(
            self.order(run_id), self.flow, self.graphs, self.world.ports(), saver, decision
        )

    async def finish(self, run_id: str) -> RunResult:
        """To the end; every question is answered yes."""
        result = await self.run(run_id)
        started = self.started()
        while result.waiting is not None:
            yes = Decision(action="approve", interrupt_id=result.waiting.interrupt_id)
            result = await self.run(run_id, yes)
            started += self.started()
        self.path = started
        return result

    def started(self) -> list[str]:
        return [str(node) for type, node, _, _ in self.world.events.seen if type == "node.started"]

    async def fork(self, checkpoint_id: str | None = None, source: str = "r1", **edits: Any) -> str:
        """Rows of a new run in the store; its id."""
        target = f"{source}-fork"
        rows = await fork_state(
            self.store, self.graphs, self.flow, source, self.order(target), checkpoint_id, edits
        )
        assert {row.thread_id for row in rows} == {target}
        await self.store.drop_threads([target])
        await self.store.keep(rows, ())
        return target

    async def document(self, run_id: str = "r1") -> dict[str, Any]:
        return await state_document(self.store, self.graphs, self.flow, run_id)

    async def checkpoint_before(self, *nodes: str) -> str:
        """The first checkpoint of r1 after which exactly these nodes would run."""
        for fact in reversed((await self.document())["checkpoints"]):
            if sorted(fact["next"]) == sorted(nodes):
                return str(fact["checkpoint_id"])
        raise AssertionError(f"no checkpoint before {nodes}")


def lettered(nodes: str, edges: str, *yes: str, **values: Any) -> Lab:
    """A flow of nodes with letters, each with a signal ``yes`` that those in ``yes`` raise."""
    return Lab(
        saying(spec_of(nodes, edges, **values)),
        lambda asked: "yes" if asked.metadata["node"] in yes else f"{asked.metadata['node']} says no",
    )


def _catalog(flow: FlowSpec) -> Catalog:
    return PACKAGE if flow.name in PACKAGE.flows.names() else catalog_with(flow, prompts=(SAYS,))
