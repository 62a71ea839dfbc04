"""The runtime's applications for a Serve config file (deploy/rayservice.yaml, `serve deploy`).

Such a file names builders by import path. The configuration comes from the environment of the nodes, the
same on all of them, with PARLEY_API_KEY among it: no key is made where nobody could read it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve

from actors.gpu import is_gpu_build
from actors.model_placement import placed_model
from actors.model_replica import build_model_app
from actors.remote_adapter import build_remote_adapter_app
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from registries.loader import load_catalog
from serve_app.app import build_app
from serve_app.lifecycle.compose_config import completed_config
from serve_app.settings import load_settings

INSTANCE = "cluster"


def front_door(args: dict[str, Any]) -> serve.Application:
    """The application "parley": Ingress and FlowRunner. Takes no arguments."""
    refuse_unknown(args, allowed=())
    return build_app(cluster_config())


def model(args: dict[str, Any]) -> serve.Application:
    """The application of one local model; ``key`` names its registry entry."""
    refuse_unknown(args, allowed=("key",))
    config = cluster_config()
    spec = load_catalog(config).get_model(str(args.get("key", "")))
    if not spec.is_local:
        raise ValidationError(f"model {spec.key!r} is not local: it needs no application", param="key")
    return build_model_app(placed_model(spec, ray.cluster_resources(), is_gpu_build()), config)


def remote_adapter(args: dict[str, Any]) -> serve.Application:
    """The application "remote-adapter", for models that litellm reaches. Takes no arguments."""
    refuse_unknown(args, allowed=())
    return build_remote_adapter_app(cluster_config())


def cluster_config(environment: Mapping[str, str] | None = None) -> RuntimeConfig:
    """RuntimeConfig from the environment alone, as completed_config makes it.

    Raises ValidationError without PARLEY_API_KEY too.
    """
    settings = load_settings(os.environ if environment is None else environment, env_file=None)
    if not settings.api_key:
        raise ValidationError("PARLEY_API_KEY must be set on every node of a cluster", param="PARLEY_API_KEY")
    config = settings.runtime_config(instance=INSTANCE)
    return completed_config(config, load_catalog(config))


def refuse_unknown(args: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """A typo in `args` is an error and not a default."""
    unknown = sorted(set(args) - set(allowed))
    if unknown:
        raise ValidationError(f"args {unknown} are unknown; allowed: {list(allowed) or 'none'}", param="args")
