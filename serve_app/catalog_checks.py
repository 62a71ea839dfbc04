"""Checks requests against the catalog, so that what cannot run is refused before it is accepted."""

from __future__ import annotations

from flows.admission import admit
from flows.roles import model_roles
from registries.catalog import Catalog
from registries.contracts.errors import NotFound
from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import RunOrder
from registries.specs import FlowSpec


def check_run_order(order: RunOrder, catalog: Catalog, pinned: FlowSpec | None = None) -> FlowSpec:
    """The flow that the order names, or the version that it is ``pinned`` to.

    Raises NotFound (flow, strategy or model, with a suggestion) or ValidationError (version, roles and
    inputs that the flow does not have, models that are off); ``param`` is the field of the request.
    """
    request = order.request
    flow = pinned or _known_flow(request.flow_type, catalog)
    check_strategy(request.strategy, catalog)
    for role, reference in request.models.items():
        if role in model_roles(flow):
            check_model(reference, catalog, param=f"models.{role}")
    admit(order, flow, catalog)
    return flow


def check_generation_request(request: GenerationRequest, catalog: Catalog) -> None:
    """Raises NotFound for an unknown model or strategy, naming the field."""
    check_strategy(request.strategy, catalog)
    if request.model_key is not None:
        check_model(request.model_key, catalog, param="model_key")


def check_model(reference: str, catalog: Catalog, param: str) -> None:
    """Raises NotFound unless ``reference`` is a model_key or ``tier:NAME``."""
    try:
        catalog.model_for(reference)
    except NotFound as error:
        raise NotFound(error.message, param=param) from None


def check_strategy(name: str | None, catalog: Catalog) -> None:
    """Raises NotFound unless the strategy is registered (None means the default)."""
    if name is not None:
        try:
            catalog.strategies.get(name)
        except NotFound as error:
            raise NotFound(error.message, param="strategy") from None


def _known_flow(name: str, catalog: Catalog) -> FlowSpec:
    try:
        return catalog.flows.get(name)
    except NotFound as error:
        raise NotFound(error.message, param="flow_type") from None
