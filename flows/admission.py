"""Whether an order can run at all; to be asked before it is accepted, and again where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flows.roles import chosen_model, chosen_models
from flows.scope_notice import scope_notice
from flows.state import AgentState
from flows.state_transformers import first_state
from flows.variables import question_of
from registries.catalog import Catalog
from registries.contracts.errors import NotFound, ParleyError, ValidationError
from registries.contracts.runs import RunOrder
from registries.specs import FlowSpec, ModelSpec


@dataclass(frozen=True, slots=True)
class Admitted:
    """The first state, and the model key of each node (None: the gateway chooses).

    Of a resumed run: the state it stopped in, and for nodes whose model is gone, why.
    """

    state: AgentState
    models: Mapping[str, str | None]
    missing: Mapping[str, ParleyError] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """What is asked."""
        return question_of(self.state)

    def notice(self, catalog: Catalog) -> str | None:
        """What to tell the user before the run: the question is outside what these models can do."""
        return scope_notice(self.question, self.model_specs(catalog))

    def model_specs(self, catalog: Catalog) -> list[ModelSpec]:
        """The models that the flow's nodes are sure to ask."""
        keys = dict.fromkeys(key for key in self.models.values() if key is not None)
        return [catalog.get_model(key) for key in keys]


def admit(order: RunOrder, flow: FlowSpec, catalog: Catalog) -> Admitted:
    """Check inputs, version, strategy and models; raises ValidationError saying what is allowed."""
    request = order.request
    if request.flow_version is not None and request.flow_version != flow.version:
        message = (
            f"flow_version {request.flow_version!r} is not the version of {flow.name!r} here: {flow.version}"
        )
        raise ValidationError(message, "flow_version")
    if request.strategy is not None:
        try:
            catalog.strategies.get(request.strategy)
        except NotFound as error:
            raise ValidationError(error.message, "strategy") from error
    state = first_state(order, flow, {flow.name, *catalog.flows.names()})
    if request.flow_type != flow.name:
        raise ValidationError(
            f"the order is for the flow {request.flow_type!r}, not {flow.name!r}", "flow_type"
        )
    return Admitted(state, chosen_models(flow, request, catalog))


def readmit(order: RunOrder, flow: FlowSpec, state: AgentState, catalog: Catalog) -> Admitted:
    """An accepted run that goes on with ``state``: never refused, whatever the catalog holds by now."""
    models: dict[str, str | None] = {}
    missing: dict[str, ParleyError] = {}
    for node in flow.nodes:
        try:
            models[node.id] = chosen_model(flow, node, order.request, catalog)
        except ParleyError as error:
            models[node.id], missing[node.id] = None, error
    return Admitted(state, models, missing)
