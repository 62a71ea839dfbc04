"""Checks a run request against the catalog, so that what cannot run is refused before it is accepted."""

from __future__ import annotations

from registries.catalog import Catalog
from registries.contracts.errors import NotFound, ValidationError
from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import RunRequest
from registries.specs import FlowSpec


def check_run_request(request: RunRequest, catalog: Catalog) -> FlowSpec:
    """The flow that the request names.

    Raises NotFound (flow, version, strategy or model, with a suggestion) or ValidationError (a role or
    input that the flow does not have); ``param`` is the field of the request.
    """
    flow = _known_flow(request, catalog)
    check_strategy(request.strategy, catalog)
    roles = flow_roles(flow)
    for role, reference in request.models.items():
        if role not in roles:
            raise ValidationError(
                f"field 'models': flow {flow.name!r} has no role {role!r}; its roles: {', '.join(roles)}",
                param=f"models.{role}",
            )
        check_model(reference, catalog, param=f"models.{role}")
    unknown = sorted(set(request.input or {}) - set(flow.input))
    if unknown:
        raise ValidationError(
            f"field 'input': flow {flow.name!r} takes {', '.join(flow.input)}, not {', '.join(unknown)}",
            param=f"input.{unknown[0]}",
        )
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


def flow_roles(flow: FlowSpec) -> list[str]:
    """Names that ``models`` of a run request may use, in the flow's order."""
    return list(dict.fromkeys(node.role or node.id for node in flow.nodes))


def _known_flow(request: RunRequest, catalog: Catalog) -> FlowSpec:
    try:
        flow = catalog.flows.get(request.flow_type)
    except NotFound as error:
        raise NotFound(error.message, param="flow_type") from None
    if request.flow_version is not None and request.flow_version != flow.version:
        raise NotFound(
            f"flow {flow.name!r} has no version {request.flow_version!r}; its version is {flow.version}",
            param="flow_version",
        )
    return flow
