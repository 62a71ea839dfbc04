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
    check_roles(flow, request)
    return {node.id: chosen_model(flow, node, request, catalog) for node in flow.nodes}


def check_roles(flow: FlowSpec, request: RunRequest) -> None:
    """Raise ValidationError for a role that the flow does not have."""
    roles = model_roles(flow)
    for role in request.models:
        if role not in roles:
            allowed = ", ".join(roles) or "none"
            message = f"models.{role}: the flow {flow.name!r} has no role {role!r}; roles: {allowed}"
            raise ValidationError(message, f"models.{role}")


def chosen_model(flow: FlowSpec, node: NodeSpec, request: RunRequest, catalog: Catalog) -> str | None:
    """The key for one node; a node that watches another has that one's. Raises NotFound too."""
    watched = node.params.get("watch")
    node = next((other for other in flow.nodes if other.id == watched), node)
    wanted = request.models.get(role_of(node)) if _asks_a_model(node) else None
    if wanted is not None:
        return _usable(catalog, wanted, f"models.{role_of(node)}").key
    return catalog.model_for(node.model).key if node.model else None


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
