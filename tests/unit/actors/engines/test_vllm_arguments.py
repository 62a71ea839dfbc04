from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.engines.vllm_arguments import vllm_arguments, vllm_environment
from actors.engines.vllm_progress import VllmProgress
from actors.engines.weights import threads_for
from actors.gpu import GpuMemory, GpuReport
from registries.contracts.config import RuntimeConfig
from registries.specs import ModelSpec

CONFIG = RuntimeConfig(home="h", max_vram_usage_gb=6)
NO_GPU = GpuReport(reason="none")


def spec(**fields: Any) -> ModelSpec:
    settings = {
        "key": "m",
        "family": "f",
        "provider": "local",
        "engine": "vllm",
        "location": "x/y",
        "context_window": 4096,
        "default_strategy": "optimized",
    }
    return ModelSpec.model_validate({**settings, **fields})


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    (tmp_path / "model.safetensors").write_bytes(b"0" * 100)
    return str(tmp_path)


def test_on_a_cpu(folder: str) -> None:
    arguments = vllm_arguments(spec(), CONFIG, folder, True, NO_GPU)
    assert arguments["max_model_len"] == 512, "the model's own limit"
    assert arguments["enable_prefix_caching"]
    assert arguments["enforce_eager"]
    assert arguments["dtype"] == "float32"
    assert arguments["kv_cache_memory_bytes"] == 64 * 1024**2
    assert arguments["max_num_seqs"] == 64
    assert "gpu_memory_utilization" not in arguments
    assert "download_dir" not in arguments


def test_on_a_gpu_the_limit_of_vram_is_a_share_of_the_device() -> None:
    report = GpuReport((GpuMemory(0, "GPU", 24.0, 0.0, 24.0),))
    arguments = vllm_arguments(spec(), CONFIG, "x/y", False, report)
    assert arguments["gpu_memory_utilization"] == 0.25
    assert arguments["dtype"] == "auto"
    assert not arguments["enforce_eager"]
    assert "kv_cache_memory_bytes" not in arguments
    roomy = CONFIG.model_copy(update={"max_vram_usage_gb": 100.0})
    assert vllm_arguments(spec(), roomy, "x/y", False, report)["gpu_memory_utilization"] == 0.9


def test_tiny_models_on_a_gpu_leave_room_for_others(folder: str) -> None:
    report = GpuReport((GpuMemory(0, "GPU", 20.0, 0.0, 20.0),))
    arguments = vllm_arguments(spec(), CONFIG, folder, False, report)
    assert arguments["gpu_memory_utilization"] == 0.1
    assert arguments["enforce_eager"]
    assert arguments["kv_cache_memory_bytes"] == 64 * 1024**2


def test_options_of_the_entry_win(folder: str) -> None:
    options = {
        "dtype": "bfloat16",
        "kv_cache_mb": 64,
        "max_num_seqs": 7,
        "enforce_eager": False,
        "quantization": "awq",
    }
    arguments = vllm_arguments(spec(engine_options=options), CONFIG, folder, True, NO_GPU)
    assert (arguments["dtype"], arguments["max_num_seqs"], arguments["quantization"]) == (
        "bfloat16",
        7,
        "awq",
    )
    assert arguments["kv_cache_memory_bytes"] == 64 * 1024**2
    assert not arguments["enforce_eager"]


def test_a_model_of_the_hub_goes_into_the_cache() -> None:
    arguments = vllm_arguments(spec(), CONFIG, "x/y", True, NO_GPU)
    assert arguments["download_dir"].endswith(CONFIG.model_cache_dir)
    assert arguments["max_model_len"] == 4096
    assert arguments["dtype"] == "auto"


def test_tiny_models_get_one_thread_and_others_every_core(folder: str) -> None:
    assert threads_for(spec(), folder) == 1
    assert threads_for(spec(), "some/model") >= 1
    assert threads_for(spec(engine_options={"threads": 3}), folder) == 3


def test_the_environment_binds_nothing_and_phones_nobody() -> None:
    environment = vllm_environment(2, offline=True)
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in vllm_environment(2, offline=False)


def test_progress_keeps_the_last_figures_and_adds_up_tokens() -> None:
    progress = VllmProgress()
    scheduler = SimpleNamespace(
        num_running_reqs=2, num_waiting_reqs=1, num_skipped_waiting_reqs=1, kv_cache_usage=0.5
    )
    progress.record(scheduler, SimpleNamespace(num_generation_tokens=3), engine_idx=0)
    progress.record(None, SimpleNamespace(num_generation_tokens=4))
    progress.record(scheduler, None)
    assert progress == VllmProgress(running=2, waiting=2, kv_cache_use=0.5, tokens=7)
