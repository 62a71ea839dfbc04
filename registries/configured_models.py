"""What the runtime's configuration changes about the declared models: engines, keys, tiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from registries.contracts.config import RuntimeConfig
from registries.specs import LOCAL_ENGINES, ModelSpec

LOCAL_ENGINE_CHOICES: tuple[str, ...] = ("auto", "vllm", "transformers")


def configured_model(spec: ModelSpec, config: RuntimeConfig) -> ModelSpec:
    """The entry with the configured local engine, and enabled where its provider's key is there."""
    changes: dict[str, object] = {}
    if spec.engine in LOCAL_ENGINES and config.local_engine in LOCAL_ENGINES:
        changes["engine"] = config.local_engine
    if spec.api_key_env and config.provider_keys.get(spec.api_key_env):
        changes["enabled"] = True
    return spec.model_copy(update=changes) if changes else spec


def preferred_models(
    models: Sequence[ModelSpec], extra: Sequence[ModelSpec], config: RuntimeConfig
) -> list[ModelSpec]:
    """The models that somebody configured, which are used instead of the embedded ones; empty if none.

    A model given explicitly comes before a provider's key, and DEFAULT_PROVIDER before other providers.
    """
    if given := [model for model in extra if model.enabled and model.has("chat")]:
        return given
    keyed = [m for m in models if m.enabled and m.api_key_env and config.provider_keys.get(m.api_key_env)]
    wanted = [model for model in keyed if model.provider == config.default_provider]
    if wanted or not keyed:
        return wanted
    return [model for model in keyed if model.provider == keyed[0].provider]


def configured_tiers(
    declared: Mapping[str, str], preferred: Sequence[ModelSpec], config: RuntimeConfig
) -> dict[str, str]:
    """Tiers after configuration: the preferred models take every declared tier, explicit settings win."""
    tiers = dict(declared)
    if preferred:
        tiers = {tier: _best_for(tier, preferred).key for tier in declared}
        if judges := [model for model in preferred if model.has("judge")]:
            tiers["judge"] = max(judges, key=lambda model: model.quality).key
    return tiers | dict(config.tiers)


def _best_for(tier: str, models: Sequence[ModelSpec]) -> ModelSpec:
    """The model declared for the tier, else by quality: the lowest is light, the highest strong."""
    for model in models:
        if model.tier == tier:
            return model
    ranked = sorted(models, key=lambda model: model.quality)
    if tier == "light":
        return ranked[0]
    return ranked[len(ranked) // 2] if tier == "balanced" else ranked[-1]
