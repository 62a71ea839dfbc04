"""What is registered at the runtime, as it tells it.

The fields that most callers want have names here; everything else of an entry is kept as it came (see
registries.specs), so that a runtime may know engines, tiers and nodes that this version does not.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from serve_app.client.answers import TolerantAnswer


class ModelEntry(TolerantAnswer):
    """A model and whether it can answer now: ready, loading, failed, not_loaded, remote or disabled."""

    key: str
    state: str = "unknown"
    reason: str | None = None
    family: str = ""
    provider: str = ""
    engine: str = ""
    location: str = ""
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    tier: str | None = None
    enabled: bool = True


class ModelList(TolerantAnswer):
    """GET /api/models. ``tiers`` maps a tier to its model_key."""

    models: tuple[ModelEntry, ...]
    tiers: dict[str, str] = Field(default_factory=dict)


class StrategyEntry(TolerantAnswer):
    """How a model is called: sampling, limits, retries, and the models to fall back on, in order."""

    name: str
    description: str = ""
    sampling: dict[str, Any] = Field(default_factory=dict)
    limits: dict[str, Any] = Field(default_factory=dict)
    retry: dict[str, Any] = Field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    prefer: str = ""


class StrategyList(TolerantAnswer):
    """GET /api/strategies. ``default`` is the name of the one that is used where none is given."""

    strategies: tuple[StrategyEntry, ...]
    default: str = ""


class FlowSummary(TolerantAnswer):
    """A flow in the list: enough to call it."""

    name: str
    version: str = ""
    description: str = ""
    input: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


class FlowList(TolerantAnswer):
    """GET /api/flows."""

    flows: tuple[FlowSummary, ...]


class FlowDetail(FlowSummary):
    """GET /api/flows/{name}: the whole declaration, and a Mermaid drawing of its graph."""

    spec: dict[str, Any] = Field(default_factory=dict)
    mermaid: str = ""
