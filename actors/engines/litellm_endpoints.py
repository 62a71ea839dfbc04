"""Where litellm sends the calls of an entry, and with which key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from registries.contracts.config import RuntimeConfig
from registries.specs import ModelSpec

Endpoint = tuple[str | None, str]
"""Base URL (None: the provider's own) and key."""
NO_KEY = "none"
"""Sent to an own URL without a key: given none, litellm would send the provider's, from the environment."""
# litellm's names of providers whose key has another name than PROVIDER_API_KEY.
_KEY_NAMES = {
    "gemini": "GOOGLE_API_KEY",
    "vertex_ai": "GOOGLE_API_KEY",
    "litellm_proxy": "LITELLM_MASTER_KEY",
}


def litellm_endpoints(specs: Iterable[ModelSpec], config: RuntimeConfig) -> dict[str, Endpoint]:
    """The endpoint of each litellm entry, by the entry's key: one location may be at several places."""
    return {spec.key: _own_endpoint(spec, config.provider_keys) for spec in specs if spec.engine == "litellm"}


def _own_endpoint(spec: ModelSpec, keys: Mapping[str, str]) -> Endpoint:
    base_url, key = provider_endpoint(spec.location, keys)
    if spec.api_key_env:
        key = keys.get(spec.api_key_env, "")
    elif spec.base_url:
        key = ""
    return spec.base_url or base_url, key or (NO_KEY if spec.base_url else "")


def provider_endpoint(model: str, keys: Mapping[str, str]) -> Endpoint:
    """Where a model of that litellm name is asked when its entry says nothing else."""
    provider = litellm_provider(model)
    name = _KEY_NAMES.get(provider, f"{provider.upper()}_API_KEY")
    return keys.get("LITELLM_PROXY_URL") if provider == "litellm_proxy" else None, keys.get(name, "")


def litellm_provider(model: str) -> str:
    """The provider in litellm's name; a bare name is OpenAI's."""
    return model.split("/", 1)[0] if "/" in model else "openai"
