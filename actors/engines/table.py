"""The table of engines: one line each. Nothing is imported before an engine of its kind is made."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import Engine
from registries.contracts.errors import ValidationError
from registries.specs import LOCAL_ENGINES, EngineName, ModelSpec

EngineLoader = Callable[[ModelSpec, RuntimeConfig], Engine]


def _vllm(spec: ModelSpec, config: RuntimeConfig) -> Engine:
    from actors.engines.vllm_engine import VllmEngine

    return VllmEngine(spec, config)


def _transformers(spec: ModelSpec, config: RuntimeConfig) -> Engine:
    from actors.engines.transformers_engine import TransformersEngine

    return TransformersEngine(spec, config)


def _openai_compatible(spec: ModelSpec, config: RuntimeConfig) -> Engine:
    from actors.engines.openai_compatible import OpenAICompatibleEngine

    return OpenAICompatibleEngine(spec, config)


def _litellm(spec: ModelSpec, config: RuntimeConfig) -> Engine:
    from actors.engines.litellm_endpoints import litellm_endpoints
    from actors.engines.litellm_engine import LitellmEngine

    return LitellmEngine(litellm_endpoints([spec], config))


def _scripted(spec: ModelSpec, config: RuntimeConfig) -> Engine:
    if spec.base_url is not None:
        return _openai_compatible(spec, config)
    from actors.engines.scripted import ScriptedEngine

    return ScriptedEngine(spec)


ENGINE_LOADERS: dict[EngineName, EngineLoader] = {
    "vllm": _vllm,
    "transformers": _transformers,
    "openai_compatible": _openai_compatible,
    "litellm": _litellm,
    "scripted": _scripted,
}


def engine_of(spec: ModelSpec, config: RuntimeConfig) -> EngineName:
    """The engine that will really be used: ``local_engine`` decides between the two local ones.

    ``auto`` is vLLM where it is installed, else Transformers. Raises ValidationError(param="local_engine").
    """
    if spec.engine not in LOCAL_ENGINES:
        return spec.engine
    if config.local_engine == "vllm":
        return "vllm"
    if config.local_engine == "transformers":
        return "transformers"
    if config.local_engine != "auto":
        raise ValidationError(
            f"local_engine {config.local_engine!r} is unknown; allowed: auto, vllm, transformers",
            "local_engine",
        )
    if spec.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        return "transformers"
    return spec.engine


def make_engine(spec: ModelSpec, config: RuntimeConfig) -> Engine:
    """An engine for this entry, not started yet."""
    return ENGINE_LOADERS[engine_of(spec, config)](spec, config)
