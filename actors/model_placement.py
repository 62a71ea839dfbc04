"""Where a local model runs: the GPUs that its replica asks for, and why a cluster cannot take it."""

from __future__ import annotations

from collections.abc import Mapping

from actors.gpu import GpuReport, read_gpus, refusal
from registries.contracts.config import RuntimeConfig
from registries.specs import LOCAL_ENGINES, ModelSpec

EMBEDDED_GPU_SHARE = 0.1
"""Ten of the embedded models share a GPU: each holds a few megabytes and vLLM's own gigabyte or so."""


def placed_model(spec: ModelSpec, cluster: Mapping[str, float], gpu_build: bool) -> ModelSpec:
    """The entry with ``scaling.num_gpus`` decided for this cluster (``ray.cluster_resources()``).

    An entry that says nothing gets what its engine takes where there are GPUs: what is not asked for is not
    reserved, and two models would load onto one GPU. ``gpu_build``: what ``is_gpu_build`` says; a CPU build
    is never given a GPU that it cannot use.
    """
    scaling = spec.scaling.model_copy(update={"num_gpus": num_gpus_for(spec, cluster, gpu_build)})
    return spec.model_copy(update={"scaling": scaling})


def num_gpus_for(spec: ModelSpec, cluster: Mapping[str, float], gpu_build: bool) -> float:
    """What the entry says; else 0 without GPUs, a share for an embedded model, one a tensor-parallel rank."""
    if spec.scaling.num_gpus is not None:
        return spec.scaling.num_gpus
    if spec.engine not in LOCAL_ENGINES or not gpu_build or cluster.get("GPU", 0) < 1:
        return 0.0
    if spec.is_embedded:
        return EMBEDDED_GPU_SHARE
    return float(spec.engine_options.get("tensor_parallel_size", 1))


def placement_problem(
    spec: ModelSpec,
    config: RuntimeConfig,
    cluster: Mapping[str, float],
    gpu_build: bool,
    gpus: GpuReport | None = None,
) -> str | None:
    """Why this cluster (``ray.cluster_resources()``) can never place the model; None when it can.

    Asked before deploying: Serve would wait for ever for a GPU that no node has.
    """
    num_gpus = num_gpus_for(spec, cluster, gpu_build)
    if num_gpus > cluster.get("GPU", 0):
        return f"it asks for {num_gpus:g} GPU(s), the cluster has {cluster.get('GPU', 0):g}"
    if spec.scaling.num_cpus > cluster.get("CPU", 0):
        return f"it asks for {spec.scaling.num_cpus:g} CPU(s), the cluster has {cluster.get('CPU', 0):g}"
    if spec.min_vram_gb > config.max_vram_usage_gb:
        return refusal(spec.min_vram_gb, config.max_vram_usage_gb, GpuReport())
    if spec.min_vram_gb > 0 and num_gpus == 0:
        return refusal(spec.min_vram_gb, config.max_vram_usage_gb, gpus or read_gpus())
    return None
