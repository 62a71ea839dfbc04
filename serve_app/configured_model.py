"""A registry entry made from one setting: a Hugging Face id, a local folder, or an OpenAI-compatible URL."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from registries.contracts.errors import ValidationError
from registries.specs import CostProfile, ModelSpec

MODEL_KEY_VARIABLE = "PARLEY_MODEL_API_KEY"
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_CONTEXT_UNKNOWN = 4096
"""Tokens assumed for a model that is not on this disk yet: small enough for its KV cache to fit anywhere."""
_CONTEXT_REMOTE = 32_768


def configured_model(
    model: str,
    *,
    url: str | None,
    family: str,
    context: int | None,
    strategy: str,
    cache_dir: str,
    with_key: bool = False,
) -> ModelSpec:
    """The entry for ``model``; raises ValidationError for a folder that holds no model, or no possible id.

    ``with_key`` says that PARLEY_MODEL_API_KEY is set; a server without one (Ollama, llama.cpp) needs none.
    """
    if url:
        return _remote(model, url, family, context, strategy, with_key)
    path = _as_folder(model)
    if path is None and not _HUB_ID.fullmatch(model):
        raise ValidationError(
            f"PARLEY_MODEL={model!r} is not allowed. "
            "Allowed: a Hugging Face id (owner/name) or an existing folder",
            param="PARLEY_MODEL",
        )
    facts = _facts(path) if path else _facts_from_cache(model, Path(cache_dir))
    known = facts.get("max_position_embeddings")
    window = context or (known if isinstance(known, int) and known >= 16 else _CONTEXT_UNKNOWN)
    return ModelSpec(
        key=_key(path.name if path else model),
        family=family,
        provider="local",
        engine="vllm",
        location=str(path) if path else model,
        context_window=window,
        max_output_tokens=window,
        default_strategy=strategy,
        tier="strong",
        quality=0.7,
    )


def _remote(
    model: str, url: str, family: str, context: int | None, strategy: str, with_key: bool
) -> ModelSpec:
    free = urlsplit(url).hostname in _LOOPBACK
    price = 0.0 if free else None
    return ModelSpec(
        key=_key(model),
        family=family,
        provider="openai_compatible",
        engine="openai_compatible",
        location=model,
        base_url=url,
        api_key_env=MODEL_KEY_VARIABLE if with_key else None,
        context_window=context or _CONTEXT_REMOTE,
        max_output_tokens=context or _CONTEXT_REMOTE,
        default_strategy=strategy,
        cost_profile=CostProfile(prompt_usd_per_mtok=price, completion_usd_per_mtok=price),
        tier="strong",
        quality=0.8,
        typical_latency_s=3.0,
    )


def _as_folder(model: str) -> Path | None:
    """The folder that ``model`` means, or None for an id; raises ValidationError when it holds no model."""
    looks_like_path = model.startswith(("/", "~", "./", "../")) or model in {".", ".."}
    try:
        path = Path(model).expanduser()
    except RuntimeError:
        raise ValidationError(
            f"PARLEY_MODEL={model!r}: no home directory is known for its ~. "
            "Allowed: an existing folder, or a Hugging Face id (owner/name)",
            param="PARLEY_MODEL",
        ) from None
    try:
        if not looks_like_path and not path.is_dir():
            return None
        is_model = (path / "config.json").is_file()
    except OSError as error:
        raise ValidationError(
            f"PARLEY_MODEL={model!r}: cannot be looked at ({error.strerror}). "
            "Allowed: a folder that this user may read, or a Hugging Face id (owner/name)",
            param="PARLEY_MODEL",
        ) from None
    if not is_model:
        raise ValidationError(
            f"PARLEY_MODEL={model!r}: no config.json in {path.absolute()}. "
            "Allowed: a folder in Hugging Face format (config.json, weights, tokenizer), "
            "or a Hugging Face id",
            param="PARLEY_MODEL",
        )
    return path.resolve()


def _facts(path: Path) -> dict[str, Any]:
    """config.json of a model's folder; raises ValidationError when it is no JSON object."""
    try:
        facts = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValidationError(
            f"{path / 'config.json'}: not readable as JSON ({error})", param="PARLEY_MODEL"
        ) from None
    if not isinstance(facts, dict):
        raise ValidationError(f"{path / 'config.json'}: must be a JSON object", param="PARLEY_MODEL")
    text_part = facts.get("text_config")
    return {**text_part, **facts} if isinstance(text_part, dict) else facts


def _facts_from_cache(model: str, cache_dir: Path) -> dict[str, Any]:
    """The same for an id that was downloaded before; empty when it was not."""
    snapshots = cache_dir / f"models--{model.replace('/', '--')}" / "snapshots"
    for config in sorted(snapshots.glob("*/config.json")):
        return _facts(config.parent)
    return {}


def _key(name: str) -> str:
    """A key for the registry out of any model's name."""
    return re.sub(r"[^A-Za-z0-9._/-]+", "-", name).lstrip("._/-")[:100] or "model"
