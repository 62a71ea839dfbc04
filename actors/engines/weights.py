"""Where a local model's weights are: embedded in the package, in a folder, or known to Hugging Face."""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from registries.specs import ModelSpec

EMBEDDED = "embedded:"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
TINY_BYTES = 64 * 1024**2
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def resolve_weights(spec: ModelSpec, config: RuntimeConfig) -> str:
    """A folder, or a Hugging Face id that is left to the engine to fetch.

    Raises ValidationError(param="location") naming the model, the place and what is missing there.
    """
    if spec.location.startswith(EMBEDDED):
        name = spec.location.removeprefix(EMBEDDED)
        return str(_checked(spec, Path(str(resources.files("registries.data") / "embedded_models" / name))))
    path = Path(os.path.expanduser(spec.location))
    if path.exists():
        return str(_checked(spec, path))
    cached = Path(config.model_cache_dir) / spec.location
    if cached.is_dir():
        return str(_checked(spec, cached))
    if path.is_absolute() or spec.location.startswith((".", "~")) or not _HUB_ID.match(spec.location):
        raise _wrong(spec, f"{path} does not exist")
    return spec.location


def weights_bytes(folder: str) -> int | None:
    """Size of the weights in a folder, None for an id that is not on this machine."""
    path = Path(folder)
    if not path.is_dir():
        return None
    return sum(file.stat().st_size for pattern in _WEIGHTS for file in path.glob(pattern))


def threads_for(spec: ModelSpec, folder: str) -> int:
    """CPU threads of one engine: ``engine_options.threads``, else 1 for a tiny model, every core for others.

    Below 64 MB of weights a step is so short that threads cost more in waiting for each other than they do.
    """
    if "threads" in spec.engine_options:
        return int(spec.engine_options["threads"])
    size = weights_bytes(folder)
    if size is not None and size < TINY_BYTES:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def model_config(folder: str) -> dict[str, Any]:
    """config.json of a folder, empty where there is none."""
    path = Path(folder) / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _checked(spec: ModelSpec, path: Path) -> Path:
    if not path.is_dir():
        raise _wrong(spec, f"{path} is no folder")
    if not (path / "config.json").is_file():
        raise _wrong(spec, f"{path} has no config.json")
    try:
        json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _wrong(spec, f"{path / 'config.json'} is no JSON: {error}") from error
    if not weights_bytes(str(path)):
        raise _wrong(spec, f"{path} has no weights ({', '.join(_WEIGHTS)})")
    return path


def _wrong(spec: ModelSpec, what: str) -> ValidationError:
    allowed = "a folder with config.json and weights, a Hugging Face id, or embedded:NAME"
    return ValidationError(
        f"model {spec.key}: location {spec.location!r}: {what}; allowed: {allowed}", "location"
    )
