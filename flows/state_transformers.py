"""The named pipeline that turns an order into the first state, or says what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flows.state import AgentState, new_state
from registries.contracts.errors import ValidationError
from registries.contracts.runs import RunOrder
from registries.specs import FlowSpec

FILE_SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".pdf")
MAX_ROUNDS = 20
_FILE_FIELDS: tuple[str, ...] = ("file", "files", "file_name", "file_names")


@dataclass(frozen=True, slots=True)
class TransformContext:
    """What a transformer may look at besides the state."""

    order: RunOrder
    flow: FlowSpec
    flow_names: Collection[str]


Transformer = Callable[[AgentState, TransformContext], AgentState]


def check_workflow_type(state: AgentState, context: TransformContext) -> AgentState:
    """The flow that is asked for is a registered one."""
    name = context.order.request.flow_type
    if name not in context.flow_names:
        known = ", ".join(sorted(context.flow_names))
        raise ValidationError(f"unknown flow_type {name!r}. Known: {known}", "flow_type")
    return state


def check_required_fields(state: AgentState, context: TransformContext) -> AgentState:
    """Every declared input is there, and nothing else; ``name?`` declares one that may be missing."""
    declared = {name.removesuffix("?"): not name.endswith("?") for name in context.flow.input}
    for name, value in state["input"].items():
        if name not in declared and not (name == "prompt" and value == ""):
            allowed = ", ".join(declared)
            raise ValidationError(
                f"input.{name} is not an input of this flow; allowed: {allowed}", f"input.{name}"
            )
    for name, required in declared.items():
        value = state["input"].get(name)
        if required and (value is None or (isinstance(value, str) and not value.strip())):
            raise ValidationError(
                f"input.{name} is required by the flow {context.flow.name!r}", f"input.{name}"
            )
    return state


def check_rounds(state: AgentState, context: TransformContext) -> AgentState:
    """``rounds``, where given, is a whole number in range."""
    rounds = state["input"].get("rounds")
    if rounds is None:
        return state
    if not isinstance(rounds, int) or isinstance(rounds, bool) or not 1 <= rounds <= MAX_ROUNDS:
        message = f"input.rounds is {rounds!r}; allowed: a whole number from 1 to {MAX_ROUNDS}"
        raise ValidationError(message, "input.rounds")
    return state


def check_file_names(state: AgentState, context: TransformContext) -> AgentState:
    """File names end in one of FILE_SUFFIXES, upper or lower case."""
    for name in _FILE_FIELDS:
        value = state["input"].get(name)
        for file in value if isinstance(value, list) else [] if value is None else [value]:
            if not isinstance(file, str) or not file.lower().endswith(FILE_SUFFIXES):
                allowed = ", ".join(FILE_SUFFIXES)
                raise ValidationError(f"input.{name}: {file!r} must end in one of {allowed}", f"input.{name}")
    return state


def enrich_with_metadata(state: AgentState, context: TransformContext) -> AgentState:
    """Who asked, through which flow: for summaries and logs."""
    order = context.order
    metadata = {
        "flow": context.flow.name,
        "flow_version": context.flow.version,
        "tenant": order.tenant,
        "user": order.user,
        **({"conversation_id": order.request.conversation_id} if order.request.conversation_id else {}),
    }
    return {**state, "memory": {**state["memory"], "metadata": metadata}}


PIPELINE: tuple[tuple[str, Transformer], ...] = (
    ("check_workflow_type", check_workflow_type),
    ("check_required_fields", check_required_fields),
    ("check_rounds", check_rounds),
    ("check_file_names", check_file_names),
    ("enrich_with_metadata", enrich_with_metadata),
)


def first_state(order: RunOrder, flow: FlowSpec, flow_names: Collection[str]) -> AgentState:
    """The state that a run starts with; raises ValidationError naming the field."""
    context = TransformContext(order, flow, flow_names)
    state = new_state(
        order.run_id, order.request_id, request_values(order.request.prompt, order.request.input)
    )
    for _, transform in PIPELINE:
        state = transform(state, context)
    return state


def request_values(prompt: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Inputs by name: those given, with the prompt beside them."""
    values = dict(given or {})
    if prompt or "prompt" not in values:
        values["prompt"] = prompt
    return values
