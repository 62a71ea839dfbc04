"""From settings to the configuration of one runtime, checked against the registries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic

from flows.validation import check_flows
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from registries.loader import load_catalog
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.settings import LOCAL, Settings

_ALWAYS_PASSED = frozenset(
    {
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "GOOGLE_API_KEY",
        "LANGSMITH_API_KEY",
        "LITELLM_PROXY_URL",
        "LITELLM_MASTER_KEY",
    }
)


def compose_config(settings: Settings, home: RuntimeHome, instance: str) -> RuntimeConfig:
    """The whole configuration; raises ValidationError naming every setting that the registries contradict,
    or every problem of the flows.
    """
    config = settings.runtime_config(instance=instance, api_key=settings.api_key or home.admin_key())
    catalog = load_catalog(config)
    config = completed_config(config, catalog)
    check_flows(catalog)
    return config


def completed_config(config: RuntimeConfig, catalog: Catalog) -> RuntimeConfig:
    """The configuration with one provider for tiers and default, and with no key that no model needs.

    However a runtime is begun, it begins with this. Raises ValidationError for names that no registry has.
    """
    config = with_default_provider(config, catalog)
    check_names(config, catalog)
    wanted = _ALWAYS_PASSED | {model.api_key_env for model in catalog.models if model.api_key_env}
    keys = {name: key for name, key in config.provider_keys.items() if name in wanted}
    return config.model_copy(update={"provider_keys": keys})


def with_default_provider(config: RuntimeConfig, catalog: Catalog) -> RuntimeConfig:
    """One provider for tiers and default.

    The catalog gives the tiers to an own model, or to a provider whose key is there; DEFAULT_PROVIDER=local
    (the default) goes with that, another one takes the tiers for itself.
    """
    strong = catalog.tiers.get("strong")
    used = catalog.get_model(strong).provider if strong else config.default_provider
    if used == config.default_provider:
        return config
    if config.default_provider == LOCAL:
        return config.model_copy(update={"default_provider": used})
    return config.model_copy(update={"tiers": provider_tiers(catalog, config.default_provider)})


def provider_tiers(catalog: Catalog, provider: str) -> dict[str, str]:
    """The provider's model for each tier; a tier it does not declare gets its best one."""
    offered = sorted((m for m in catalog.list_models() if m.provider == provider), key=lambda m: m.quality)
    by_tier = {model.tier: model.key for model in offered if model.tier}
    return {tier: by_tier.get(tier, offered[-1].key) for tier in catalog.tiers} if offered else {}  # type: ignore[call-overload]


def check_names(config: RuntimeConfig, catalog: Catalog) -> None:
    """Raise one ValidationError for all settings that name what no registry has."""
    problems = []
    providers = sorted({model.provider for model in catalog.list_models()} | {LOCAL})
    if config.default_provider not in providers:
        problems.append(
            _unknown("DEFAULT_PROVIDER", config.default_provider, providers) + _key_hint(config, catalog)
        )
    if config.default_strategy not in catalog.strategies:
        problems.append(_unknown("DEFAULT_STRATEGY", config.default_strategy, catalog.strategies.names()))
    local = sorted(model.key for model in catalog.models if model.is_local)
    problems += [_unknown("PARLEY_MODELS", key, local) for key in config.models if key not in local]
    if problems:
        raise ValidationError(
            "wrong configuration:\n" + "\n".join(problems), param=problems[0].split("=")[0].strip()
        )


def _key_hint(config: RuntimeConfig, catalog: Catalog) -> str:
    """Which key would make the provider usable."""
    names = {m.api_key_env for m in catalog.models if m.provider == config.default_provider and m.api_key_env}
    return f" ({config.default_provider} needs {', '.join(sorted(names))})" if names else ""


def _unknown(name: str, value: str, allowed: list[str]) -> str:
    return f"  {name}={value!r} is not allowed. Allowed: {', '.join(allowed)}"


def read_config(home: RuntimeHome) -> RuntimeConfig | None:
    """The configuration of the running runtime; None when there is none to read."""
    try:
        return RuntimeConfig.model_validate_json(Path(home.config_file).read_bytes())
    except (OSError, pydantic.ValidationError):
        return None


def changed_fields(running: RuntimeConfig, wanted: RuntimeConfig) -> list[str]:
    """Names of the fields that differ, sorted; never their values, some are secrets."""
    before, after = _comparable(running), _comparable(wanted)
    return sorted(name for name in before if before[name] != after[name])


def _comparable(config: RuntimeConfig) -> dict[str, Any]:
    # The folder of downloads counts from where the command was typed; that is no change of mind.
    return config.model_dump(mode="json", exclude={"instance", "model_cache_dir"})
