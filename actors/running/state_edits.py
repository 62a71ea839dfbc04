"""What a fork may change in the state it begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pydantic
from pydantic import Field

from flows.state import AgentState
from flows.state_transformers import TransformContext, check_file_names, check_required_fields, check_rounds
from registries.contracts.errors import ValidationError
from registries.contracts.frozen import Frozen
from registries.contracts.generation import Message
from registries.contracts.runs import RunOrder
from registries.specs import FlowSpec


class MemoryEdits(Frozen):
    """What nodes remember for each other (flows.state.MEMORY_KEYS); who asked is not theirs to change."""

    task_type: str | None = None
    requirements: dict[str, Any] | None = None
    available_vram_gb: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    history: list[Message] = Field(default_factory=list)


class StateEdits(Frozen):
    """Values by key; keys that are not named stay, objects inside ``input`` and ``memory`` likewise."""

    input: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, str] = Field(default_factory=dict)
    memory: MemoryEdits = MemoryEdits()
    scores: dict[str, float] = Field(default_factory=dict)
    signals: dict[str, list[str]] = Field(default_factory=dict)

    @classmethod
    def parse(cls, edits: Mapping[str, Any]) -> StateEdits:
        """From a request's ``state``; raises ValidationError (param state.…) that says what is allowed."""
        if unknown := sorted(edits.keys() - cls.model_fields.keys()):
            allowed = ", ".join(cls.model_fields)
            raise ValidationError(
                f"state.{unknown[0]} cannot be edited; allowed: {allowed}", f"state.{unknown[0]}"
            )
        try:
            return cls.model_validate(dict(edits))
        except pydantic.ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(["state", *(str(part) for part in first["loc"])])
            raise ValidationError(f"{place}: {first['msg']}", place) from error

    def applied(self, state: AgentState, flow: FlowSpec, order: RunOrder) -> AgentState:
        """A new state with the edits in it; raises ValidationError for a node or an input that is not there.

        An output is also the text of its node's latest visit: that is what later nodes and the answer read.
        """
        edits = self.model_dump(mode="json", exclude_unset=True)
        self._check_nodes(state, flow)
        values: dict[str, Any] = {**state}
        for channel, edited in edits.items():
            values[channel] = merged_deep(values[channel], edited)
        changed = cast(AgentState, values)
        if self.outputs:
            changed["results"] = _with_texts(state["results"], self.outputs)
        if self.input:
            context = TransformContext(order, flow, {flow.name})
            for check in (check_required_fields, check_rounds, check_file_names):
                check(changed, context)
        return changed

    def _check_nodes(self, state: AgentState, flow: FlowSpec) -> None:
        known = {node.id for node in flow.nodes}
        answered = {result["id"] for result in state["results"] if result["status"] == "completed"}
        named = (
            ("outputs", self.outputs, answered),
            ("scores", self.scores, known),
            ("signals", self.signals, known),
        )
        for channel, values, allowed in named:
            if unknown := sorted(values.keys() - allowed):
                place = f"state.{channel}.{unknown[0]}"
                what = "has answered at this checkpoint" if channel == "outputs" else "is in this flow"
                names = ", ".join(sorted(allowed)) or "none"
                raise ValidationError(f"{place}: no such node {what}; allowed: {names}", place)


def merged_deep(old: Any, new: Any) -> Any:
    """Objects key by key, at every depth; anything else is replaced."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    return {**old, **{key: merged_deep(old.get(key), value) for key, value in new.items()}}


def _with_texts(results: list[dict[str, Any]], texts: Mapping[str, str]) -> list[dict[str, Any]]:
    last = {result["id"]: at for at, result in enumerate(results) if result["status"] == "completed"}
    edited = {last[name]: text for name, text in texts.items()}
    return [{**result, "text": edited.get(at, result["text"])} for at, result in enumerate(results)]
