"""GET /api/models, /api/strategies, /api/flows: what is registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from actors.telemetry.redaction import REDACTED
from flows.roles import model_roles
from registries.contracts.errors import NotFound
from registries.specs import FlowSpec, ModelSpec
from serve_app.openapi import error_answers
from serve_app.schemas import FlowDetail, FlowList, FlowSummary, ModelEntry, ModelList, StrategyList
from serve_app.services import Services


def catalogue_routes(services: Services) -> APIRouter:
    """Lists of the registries, and one flow in full."""
    router = APIRouter(tags=["catalogue"], responses=error_answers(401))

    @router.get("/api/models", summary="Models and their state")
    async def models() -> ModelList:
        parts = (await services.cluster.readiness()).get("parts", {})
        entries = [model_entry(spec, parts) for spec in sorted(services.catalog.models, key=lambda m: m.key)]
        return ModelList(models=entries, tiers=services.catalog.tiers)

    @router.get("/api/strategies", summary="Strategies")
    async def strategies() -> StrategyList:
        known = sorted(services.catalog.strategies, key=lambda s: s.name)
        return StrategyList(strategies=known, default=services.config.default_strategy)

    @router.get("/api/flows", summary="Flows")
    async def flows() -> FlowList:
        known = sorted(services.catalog.flows, key=lambda f: f.name)
        return FlowList(flows=[flow_summary(flow) for flow in known])

    @router.get("/api/flows/{name}", summary="One flow in full", responses=error_answers(404))
    async def flow(name: str) -> FlowDetail:
        try:
            spec = services.catalog.flows.get(name)
        except NotFound as error:
            raise NotFound(error.message, param="name") from None
        summary = flow_summary(spec)
        return FlowDetail(**dict(summary), spec=spec, mermaid=services.graphs.mermaid(spec))

    return router


def model_entry(spec: ModelSpec, parts: Mapping[str, Any]) -> ModelEntry:
    """A model with its state: from the readiness facts where it runs here, else remote or disabled."""
    values = {name: getattr(spec, name) for name in ModelSpec.model_fields}
    values["engine_options"] = shown_options(spec.engine_options)
    if not spec.enabled:
        return ModelEntry(**values, state="disabled")
    if not spec.is_local:
        return ModelEntry(**values, state="remote")
    fact = parts.get(spec.key, {})
    return ModelEntry(**values, state=fact.get("state", "not_loaded"), reason=fact.get("reason"))


def shown_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Engine options as anybody may see them: headers by their names alone, their values may be keys."""
    headers = options.get("headers")
    hidden = dict.fromkeys(headers, REDACTED) if isinstance(headers, Mapping) else REDACTED
    return {**options, "headers": hidden} if "headers" in options else dict(options)


def flow_summary(flow: FlowSpec) -> FlowSummary:
    """A flow as the list shows it."""
    return FlowSummary(
        name=flow.name,
        version=flow.version,
        description=flow.description,
        input=flow.input,
        roles=model_roles(flow),
    )
