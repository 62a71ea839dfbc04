"""What vLLM is started with: from the registry entry, the weights and the machine, as plain data."""

from __future__ import annotations

import os
from typing import Any

from actors.engines.weights import TINY_BYTES, model_config, weights_bytes
from actors.gpu import GpuReport
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from registries.specs import ModelSpec

_MB = 1024**2
# Float32 is as fast as bfloat16 for models of this size on a CPU, and answers as Transformers does.
_FLOAT32_BELOW_BYTES = 1024 * _MB
_GPU_SHARE = 0.9  # vLLM's own default
_TINY_GB = 2.0  # CUDA's context and vLLM's own buffers; the weights are megabytes
_TINY_KV_CACHE_MB = 64
PASSED_ON = ("tensor_parallel_size", "quantization", "max_num_batched_tokens", "trust_remote_code")
OPTIONS = frozenset(
    {*PASSED_ON, "dtype", "max_num_seqs", "kv_cache_mb", "gpu_memory_utilization", "threads", "enforce_eager"}
)


def check_options(spec: ModelSpec) -> None:
    """Raise ValidationError(param="engine_options") that names what vLLM's entry may not say."""
    unknown = sorted(set(spec.engine_options) - OPTIONS)
    if unknown:
        raise ValidationError(
            f"model {spec.key}: engine_options {unknown} are unknown; allowed: {sorted(OPTIONS)}",
            "engine_options",
        )


def vllm_arguments(
    spec: ModelSpec, config: RuntimeConfig, folder: str, on_cpu: bool, report: GpuReport
) -> dict[str, Any]:
    """Keyword arguments of AsyncEngineArgs; ``folder`` is what ``resolve_weights`` gave."""
    options = spec.engine_options
    positions = model_config(folder).get("max_position_embeddings", spec.context_window)
    arguments: dict[str, Any] = {
        "model": folder,
        "max_model_len": min(spec.context_window, int(positions)),
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "max_num_seqs": int(options.get("max_num_seqs", spec.scaling.max_ongoing_requests)),
        "dtype": options.get("dtype", "auto"),
        "seed": 0,
        "worker_extension_cls": "actors.engines.parent_watch.ParentWatch",
        **{name: options[name] for name in PASSED_ON if name in options},
    }
    if not os.path.isdir(folder):
        arguments["download_dir"] = os.path.abspath(os.path.expanduser(config.model_cache_dir))
    own = _cpu_arguments(options, folder) if on_cpu else _gpu_arguments(options, folder, config, report)
    return arguments | own


def _cpu_arguments(options: dict[str, Any], folder: str) -> dict[str, Any]:
    size = weights_bytes(folder) or _FLOAT32_BELOW_BYTES
    small = size < _FLOAT32_BELOW_BYTES
    kv_cache_mb = _TINY_KV_CACHE_MB if size < TINY_BYTES else 256 if small else 2048
    return {
        "dtype": options.get("dtype", "float32" if small else "auto"),
        "enforce_eager": bool(options.get("enforce_eager", True)),
        "kv_cache_memory_bytes": int(options.get("kv_cache_mb", kv_cache_mb)) * _MB,
    }


def _gpu_arguments(
    options: dict[str, Any], folder: str, config: RuntimeConfig, report: GpuReport
) -> dict[str, Any]:
    size = weights_bytes(folder)
    tiny = size is not None and size < TINY_BYTES
    most_gb = min(_TINY_GB, config.max_vram_usage_gb) if tiny else config.max_vram_usage_gb
    total_gb = min((device.total_gb for device in report.devices), default=most_gb)
    share = min(_GPU_SHARE, most_gb / total_gb)
    arguments: dict[str, Any] = {
        "gpu_memory_utilization": float(options.get("gpu_memory_utilization", share)),
        # Capturing CUDA graphs takes a tiny model longer than all that they would save it.
        "enforce_eager": bool(options.get("enforce_eager", tiny)),
    }
    if tiny:
        # Else each of them would take what its share leaves free, and several are meant to share a GPU.
        arguments["kv_cache_memory_bytes"] = int(options.get("kv_cache_mb", _TINY_KV_CACHE_MB)) * _MB
    return arguments


def vllm_environment(threads: int, offline: bool) -> dict[str, str]:
    """What vLLM reads while it is imported.

    Unbound threads let several engines share few cores; bound ones would all sit on core 0. The number is
    ours in any case: Ray sets it to the actor's num_cpus, which are logical and say nothing about cores.
    """
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # of libraries for their developers, and of Python's resource tracker about an engine ended at once
        "PYTHONWARNINGS": "ignore",
    }
    if offline:
        wanted["HF_HUB_OFFLINE"] = "1"
    return {name: os.environ.get(name, value) for name, value in wanted.items()} | {
        "OMP_NUM_THREADS": str(threads)
    }
