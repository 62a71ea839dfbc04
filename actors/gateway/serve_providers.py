"""The providers of a process inside the cluster."""

from __future__ import annotations

import ray
import ray.exceptions

from actors.gateway.providers import (
    MODEL_DEPLOYMENT,
    REMOTE_APP,
    REMOTE_DEPLOYMENT,
    ProviderTable,
    engine_in_process,
)
from actors.gateway.serve_completer import ServeCompleter
from actors.gateway.serve_readiness import ServeReadiness
from actors.gpu import is_gpu_build
from actors.model_placement import placement_problem
from actors.model_replica import model_app_name
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import Completer
from registries.specs import ModelSpec


def serve_providers(config: RuntimeConfig) -> ProviderTable:
    """Local models by their ModelReplica's handle, litellm's by the RemoteAdapter's, URLs from here."""
    readiness = ServeReadiness()

    def make(spec: ModelSpec) -> Completer:
        if spec.is_local:
            name = model_app_name(spec.key)
            return ServeCompleter(
                spec, name, MODEL_DEPLOYMENT, readiness, misplaced=lambda: _misplaced(spec, config)
            )
        if spec.engine == "litellm":
            return ServeCompleter(spec, REMOTE_APP, REMOTE_DEPLOYMENT, readiness)
        return engine_in_process(spec, config)

    return ProviderTable(make)


def _misplaced(spec: ModelSpec, config: RuntimeConfig) -> str | None:
    try:
        cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return placement_problem(spec, config, cluster, is_gpu_build())
    except ray.exceptions.RayError:
        return None  # a cluster that cannot be asked now is no reason to give the model up
