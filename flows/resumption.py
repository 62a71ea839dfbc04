"""Where a run stopped: its state, what was done, and how its graph goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import Command, Interrupt

from flows.state import STATE_VERSION, AgentState
from registries.contracts.errors import ValidationError
from registries.contracts.runs import Decision, NodeResult, Waiting
from registries.specs import FlowSpec

_START, _RESULTS, _INTERRUPT, _NEXT = "__start__", "results", "__interrupt__", "branch:to:"
"""Names of LangGraph's own: its input, questions, and the channel that starts a node."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """``results`` are all committed visits, those of a step that was cut off among them."""

    state: AgentState
    results: tuple[NodeResult, ...]
    questions: frozenset[str]
    """Ids of the interrupts that wait for an answer."""

    def graph_input(self, decision: Decision | None) -> Command[Any] | None:
        """The answer to the question it was given for; None goes on, and asks again what was not answered."""
        if decision is None or decision.interrupt_id not in self.questions:
            return None
        return Command(resume={decision.interrupt_id: decision.model_dump(mode="json")})


def where_stopped(saved: CheckpointTuple, flow: FlowSpec) -> Stopped:
    """Read a checkpoint; raises ValidationError when it is of another flow or of a later state's form."""
    state = _state(saved)
    _check_same(saved, state, flow)
    pending = saved.pending_writes or []
    finished = [result for _, channel, values in pending if channel == _RESULTS for result in values]
    results = tuple(NodeResult.model_validate(result) for result in (*state["results"], *finished))
    ids = (question.id for _, channel, found in pending if channel == _INTERRUPT for question in found)
    return Stopped(state, results, frozenset(ids))


def _state(saved: CheckpointTuple) -> AgentState:
    """The channels; in the very first checkpoint the whole state still is the graph's input."""
    channels = saved.checkpoint["channel_values"]
    return cast(AgentState, channels if _RESULTS in channels else channels[_START])


def _check_same(saved: CheckpointTuple, state: AgentState, flow: FlowSpec) -> None:
    """A graph without the node that is to come would end at once, without a word.

    Names are compared and not versions: a flow's version also changes when its form gets a new field.
    """
    if state["version"] > STATE_VERSION:
        message = f"the run's state is of version {state['version']}; known here: up to {STATE_VERSION}"
        raise ValidationError(message, "version")
    next_nodes = (name for name in saved.checkpoint["channel_versions"] if name.startswith(_NEXT))
    named = {name.removeprefix(_NEXT) for name in next_nodes} | {result["id"] for result in state["results"]}
    if strangers := named - {node.id for node in flow.nodes}:
        names = ", ".join(sorted(strangers))
        raise ValidationError(
            f"the run began with another version of {flow.name!r}; unknown here: {names}", "flow_version"
        )


def waiting_for(updates: Sequence[Mapping[str, Any]]) -> Waiting | None:
    """The first question among a graph's updates; None when it ran to its end."""
    questions: list[Interrupt] = [asked for update in updates for asked in update.get(_INTERRUPT, ())]
    if not questions:
        return None
    return Waiting(interrupt_id=questions[0].id, **questions[0].value)
