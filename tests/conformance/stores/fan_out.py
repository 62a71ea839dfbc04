"""A graph of three branches that meet, for a process that is killed in the middle of it.

``python -m tests.conformance.stores.fan_out STORE_URL FOLDER`` runs it until branch ``c`` has begun, which
then never ends. Every node adds a line ``name task_id`` to FOLDER/ran before it does anything.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from actors.running.checkpoint_saver import CheckpointSaver
from actors.stores.open_store import open_store
from actors.stores.store import Store
from flows.state import merged
from registries.contracts.config import RuntimeConfig
from tests.store_writer import StoreWriter

THREAD: RunnableConfig = {"configurable": {"thread_id": "r1"}}
BRANCHES = ("a", "b", "c")


class State(TypedDict):
    """What each node said."""

    said: Annotated[dict[str, str], merged]


def fan_out(store: Store, folder: Path, stuck: str | None = None) -> CompiledStateGraph[State, Any, Any, Any]:
    """The graph; the branch ``stuck`` waits for ever."""
    graph: StateGraph[State, None, State, State] = StateGraph(State)
    for name in BRANCHES:
        graph.add_node(name, _node(name, folder, name == stuck))
        graph.add_edge(START, name)
    graph.add_node("meet", _node("meet", folder, False))
    graph.add_edge(list(BRANCHES), "meet")
    graph.add_edge("meet", END)
    return graph.compile(checkpointer=CheckpointSaver(store, StoreWriter(store)))


def ran(folder: Path) -> list[tuple[str, str]]:
    """Name and task_id of every node that began, in order."""
    path = folder / "ran"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(name, task_id) for name, task_id in (line.split() for line in lines)]


def _node(name: str, folder: Path, stuck: bool) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def run(state: State, config: RunnableConfig) -> dict[str, Any]:
        task_id = config["metadata"]["langgraph_checkpoint_ns"].rpartition(":")[2]
        with (folder / "ran").open("a") as lines:
            lines.write(f"{name} {task_id}\n")
        if stuck:
            await asyncio.Event().wait()
        return {"said": {name: f"{name} heard {sorted(state['said'])}"}}

    return run


async def _run_until_killed(url: str, folder: Path) -> None:
    store = await open_store(RuntimeConfig(home=str(folder), store_url=url))
    await fan_out(store, folder, stuck="c").ainvoke({"said": {}}, THREAD, durability="sync")


if __name__ == "__main__":
    asyncio.run(_run_until_killed(sys.argv[1], Path(sys.argv[2])))
