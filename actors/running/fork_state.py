"""The state that a fork begins with: a checkpoint of another run, edited, and on its way again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple, copy_checkpoint
from langgraph.types import StateUpdate

from actors.running.checkpoint_codec import CheckpointCodec, config_of, strict_serializer
from actors.running.held_checkpoints import HeldCheckpoints
from actors.running.state_edits import StateEdits
from actors.stores.records import CheckpointRow
from actors.stores.store import CheckpointStore
from flows.builder import CompiledFlow, FlowGraphs
from flows.graph_plan import GraphPlan
from flows.resumption import where_stopped
from flows.state import AgentState, visits_of
from registries.contracts.errors import NotFound, ValidationError
from registries.contracts.generation import Usage
from registries.contracts.runs import INHERITED, RunOrder
from registries.specs import FlowSpec

_FREE = Usage().model_dump(mode="json")
_START, _BRANCH = "__start__", "branch:to:"
"""LangGraph's channels of its input, and of what starts a node."""


async def fork_state(
    store: CheckpointStore,
    graphs: FlowGraphs,
    flow: FlowSpec,
    run_id: str,
    order: RunOrder,
    checkpoint_id: str | None = None,
    edits: Mapping[str, Any] | None = None,
) -> tuple[CheckpointRow, ...]:
    """The first rows of the run ``order``: a checkpoint of ``run_id`` (None: the newest) with ``edits``.

    ``flow`` is the version that both runs are pinned to. What comes next is what came next there, unless the
    edits lead elsewhere: then the routes after the latest nodes are taken again with the edited state. Tasks
    of a step that was cut off run again. Raises NotFound (param checkpoint_id), ValidationError (see
    StateEdits; param checkpoint_id for another input that nothing would read), StoreError.
    """
    saved = await _checkpoint(store, run_id, checkpoint_id)
    old = where_stopped(saved, flow).state
    new = _of_order(StateEdits.parse(edits or {}).applied(old, flow, order), order, run_id)
    plan, graph = graphs.begun(flow)
    checkpoint = _with_state(saved.checkpoint, old, new)
    step = saved.metadata.get("step", -1)
    latest = _latest_nodes(checkpoint, flow)
    if any(_next(plan, name, old) != _next(plan, name, new) for name in latest):
        checkpoint = await _routed_again(graph, plan, checkpoint, latest, step)
    if new["input"] != old["input"]:
        await _check_goes_on(graph, checkpoint)
    place: Any = {"configurable": {"thread_id": order.run_id, "checkpoint_ns": ""}}
    metadata: CheckpointMetadata = {"source": "fork", "step": step, "parents": {}}
    codec = CheckpointCodec(strict_serializer())
    return (codec.checkpoint_row(place, checkpoint, metadata),)


async def _checkpoint(store: CheckpointStore, run_id: str, checkpoint_id: str | None) -> CheckpointTuple:
    found = await store.checkpoint(run_id, "", checkpoint_id)
    if found is None:
        which = "no checkpoint yet" if checkpoint_id is None else f"no checkpoint {checkpoint_id!r}"
        raise NotFound(f"run {run_id!r} has {which}", param="checkpoint_id")
    # Without the writes: they belong to tasks of the other run.
    return CheckpointCodec(strict_serializer()).read(found[0], ())


def _of_order(state: AgentState, order: RunOrder, parent: str) -> AgentState:
    """The state as the new run's own. What the other run did is in it, what that cost is not paid again."""
    asked = {"tenant": order.tenant, "user": order.user}
    if order.request.conversation_id:
        asked["conversation_id"] = order.request.conversation_id
    metadata = {**state["memory"].get("metadata", {}), **asked}
    memory = {**state["memory"], "metadata": metadata}
    results = [
        {**result, "usage": _FREE, "data": {INHERITED: parent, **result["data"]}}
        for result in state["results"]
    ]
    own = {"run_id": order.run_id, "request_id": order.request_id, "memory": memory, "results": results}
    return cast(AgentState, {**state, **own})


def _with_state(checkpoint: Checkpoint, old: AgentState, new: AgentState) -> Checkpoint:
    """The checkpoint with the new state; changed channels get a version above all others."""
    copied = copy_checkpoint(checkpoint)
    values, versions = copied["channel_values"], copied["channel_versions"]
    above = max((int(version) for version in versions.values()), default=0) + 1
    if _START in values:
        # The very first checkpoint: the state still is the graph's input.
        values[_START], versions[_START] = dict(new), above
        return copied
    changed = [name for name in new if new[name] != old[name]]  # type: ignore[literal-required]
    values.update(cast(dict[str, Any], {name: new[name] for name in changed}))  # type: ignore[literal-required]
    versions.update(dict.fromkeys(changed, above))
    return copied


def _latest_nodes(checkpoint: Checkpoint, flow: FlowSpec) -> list[str]:
    """The nodes of the last step: versions rise with every step, so that theirs saw the highest."""
    seen = checkpoint["versions_seen"]
    highest = {node.id: max(map(int, seen[node.id].values())) for node in flow.nodes if seen.get(node.id)}
    newest = max(highest.values(), default=0)
    return [name for name, version in highest.items() if version == newest]


def _next(plan: GraphPlan, name: str, state: AgentState) -> list[str]:
    return plan.next_nodes(name, state["signals"], visits_of(state, name), state["input"].get("rounds"))


async def _check_goes_on(graph: CompiledFlow, checkpoint: Checkpoint) -> None:
    """Another question with the answer to the old one would be a false pair."""
    config = config_of("fork", "", checkpoint["id"])
    held = HeldCheckpoints([CheckpointTuple(config, checkpoint, {}, pending_writes=[])])
    if not (await graph.copy({"checkpointer": held}).aget_state(config)).next:
        message = "no node is left to run behind this checkpoint, so nothing would answer another input; "
        raise ValidationError(f"{message}name an earlier one", param="checkpoint_id")


async def _routed_again(
    graph: CompiledFlow, plan: GraphPlan, checkpoint: Checkpoint, latest: list[str], step: int
) -> Checkpoint:
    """The checkpoint as if the latest nodes had just ended with this state, without a word of their own."""
    for name in plan.deferred:
        waiting = checkpoint["channel_values"].get(f"{_BRANCH}{name}")
        if waiting is not None:
            # It waits until nothing else is left to do, and that is to be found out again.
            checkpoint["channel_values"][f"{_BRANCH}{name}"] = (waiting[0], False)
    config = config_of("fork", "", checkpoint["id"])
    metadata: CheckpointMetadata = {"source": "fork", "step": step, "parents": {}}
    held = HeldCheckpoints([CheckpointTuple(config, checkpoint, metadata, pending_writes=[])])
    updates = [StateUpdate({}, name) for name in latest]
    await graph.copy({"checkpointer": held}).abulk_update_state(config, [updates])
    return held.held[0].checkpoint
