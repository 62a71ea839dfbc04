"""What is handed to Serve, and what is refused before."""

from __future__ import annotations

from typing import Any

import pytest

from actors.model_replica import autoscaling_config, deployment_options, model_app_name, room
from registries.specs import ModelSpec


def spec(**fields: Any) -> ModelSpec:
    settings = {
        "key": "m",
        "family": "f",
        "provider": "local",
        "engine": "vllm",
        "location": "x/y",
        "context_window": 128,
        "default_strategy": "optimized",
    }
    return ModelSpec.model_validate({**settings, **fields})


def test_app_names_have_safe_characters() -> None:
    assert model_app_name("nano-m") == "model-nano-m"
    assert model_app_name("Qwen/Qwen3-0.6B") == "model-Qwen_Qwen3-0_6B"


def test_limits_and_backpressure() -> None:
    options = deployment_options(
        spec(scaling={"max_ongoing_requests": 7, "max_queued_requests": 9, "num_gpus": 1})
    )
    assert (options["max_ongoing_requests"], options["max_queued_requests"]) == (7, 9)
    assert options["ray_actor_options"]["num_gpus"] == 1
    assert options["backpressure_config"].status_code == 429
    assert options["backpressure_config"].retry_after_s == 1.0
    assert options["num_replicas"] == 1
    assert "autoscaling_config" not in options


def test_a_range_of_replicas_is_scaled_by_our_policy() -> None:
    scaling = {"min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 5, "upscale_delay_s": 1}
    options = deployment_options(spec(scaling=scaling, min_vram_gb=2))
    assert "num_replicas" not in options
    config = autoscaling_config(spec(scaling=scaling, min_vram_gb=2))
    assert (config.min_replicas, config.max_replicas, config.initial_replicas) == (1, 3, 1)
    assert config.get_target_ongoing_requests() == 5
    assert config.policy.policy_function == "actors.autoscaling.ModelScalingPolicy"
    assert config.policy.policy_kwargs == {"needs_vram": True}
    assert config.policy.get_policy()(needs_vram=True).needs_vram


@pytest.mark.parametrize(
    ("fits_here", "num_gpus", "free", "more"),
    [
        # one GPU of 80 GB, which the first replica has reserved: 12 of 6 GB would fit by memory alone
        (12, 1.0, {"here": 0.0}, 0),
        (12, 1.0, {"here": 0.0, "there": 2.0, "no GPUs": 0.0}, 2),
        (1, 1.0, {"here": 3.0}, 1),
        (0, 1.0, {"here": 3.0, "there": 1.0}, 1),
        (12, 0.1, {"here": 0.1 + 0.1 + 0.1}, 3),
        (12, 0.1, {"here": 1 - 0.7}, 3),
        (12, 2.0, {"here": 1.0, "there": 3.0}, 1),
        (12, 1.0, {}, 0),
    ],
)
def test_a_replica_more_needs_a_gpu_that_nobody_has_reserved(
    fits_here: int, num_gpus: float, free: dict[str, float], more: int
) -> None:
    assert room(fits_here, num_gpus, free, "here") == more
