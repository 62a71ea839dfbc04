"""Which model each node uses: the flow's word, or the request's where it gives a role another model."""

from __future__ import annotations

from flows.nodes.table import NODE_KINDS
from registries.catalog import Catalog
from registries.contracts.errors import NotFound, ValidationError
from registries.contracts.runs import RunRequest
from registries.specs import FlowSpec, ModelSpec, NodeSpec


def role_of(node: NodeSpec) -> str:
    """The node's role; its id where none is given."""
    return node.role or node.id


def model_roles(flow: FlowSpec) -> list[str]:
    """Roles that a request can give a model to, in the flow's order."""
    return list(dict.fromkeys(role_of(node) for node in flow.nodes if _asks_a_model(node)))


def chosen_models(flow: FlowSpec, request: RunRequest, catalog: Catalog) -> dict[str, str | None]:
    """Model key by node id, None where the gateway chooses.

    Raises ValidationError naming the role or model that is unknown or off, and what is allowed.
    """
    roles = model_roles(flow)
    for role in request.models:
        if role not in roles:
            allowed = ", ".join(roles) or "none"
            message = f"models.{role}: the flow {flow.name!r} has no role {role!r}; roles: {allowed}"
            raise ValidationError(message, f"models.{role}")
    chosen: dict[str, str | None] = {}
    for node in flow.nodes:
        wanted = request.models.get(role_of(node)) if _asks_a_model(node) else None
        if wanted is not None:
            chosen[node.id] = _usable(catalog, wanted, f"models.{role_of(node)}").key
        else:
            chosen[node.id] = catalog.model_for(node.model).key if node.model else None
    for node in flow.nodes:
        watched = node.params.get("watch")
        if isinstance(watched, str) and watched in chosen:
            chosen[node.id] = chosen[watched]
    return chosen


def _asks_a_model(node: NodeSpec) -> bool:
    kind = NODE_KINDS.get(node.kind)
    return kind is not None and kind.needs_prompt


def _usable(catalog: Catalog, reference: str, param: str) -> ModelSpec:
    try:
        model = catalog.model_for(reference)
    except NotFound as error:
        raise ValidationError(f"{param}: {error.message}", param) from error
    if not model.enabled:
        needs = f"; it needs {model.api_key_env}" if model.api_key_env else ""
        enabled = ", ".join(spec.key for spec in catalog.list_models())
        raise ValidationError(
            f"{param}: model {model.key!r} is not enabled{needs}. Enabled: {enabled}", param
        )
    return model
