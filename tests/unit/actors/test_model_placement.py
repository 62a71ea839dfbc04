"""GPUs that a model asks for, and clusters that can never take it."""

from __future__ import annotations

from typing import Any

import pytest

from actors.gpu import GpuMemory, GpuReport
from actors.model_placement import EMBEDDED_GPU_SHARE, num_gpus_for, placed_model, placement_problem
from registries.contracts.config import RuntimeConfig
from tests.unit.actors.test_model_replica import spec

CONFIG = RuntimeConfig(home="h", max_vram_usage_gb=6)
GPUS = {"CPU": 4.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("fields", "cluster", "gpu_build", "expected"),
    [
        ({}, GPUS, True, 1.0),
        ({"engine": "transformers"}, GPUS, True, 1.0),
        ({"engine_options": {"tensor_parallel_size": 2}}, GPUS, True, 2.0),
        ({"location": "embedded:nano-m"}, GPUS, True, EMBEDDED_GPU_SHARE),
        ({}, {"CPU": 4.0}, True, 0.0),
        ({}, GPUS, False, 0.0),
        ({"engine": "scripted"}, GPUS, True, 0.0),
        ({"scaling": {"num_gpus": 0}}, GPUS, True, 0.0),
        ({"scaling": {"num_gpus": 0.5}}, GPUS, False, 0.5),
        ({"scaling": {"num_gpus": 1}}, {"CPU": 4.0}, True, 1.0),
    ],
)
def test_who_gets_how_much_of_a_gpu(
    fields: dict[str, Any], cluster: dict[str, float], gpu_build: bool, expected: float
) -> None:
    assert num_gpus_for(spec(**fields), cluster, gpu_build) == expected
    placed = placed_model(spec(**fields), cluster, gpu_build)
    assert placed.scaling.num_gpus == expected
    assert placed.model_copy(update={"scaling": spec(**fields).scaling}) == spec(**fields)


@pytest.mark.parametrize(
    ("fields", "cluster", "words"),
    [
        ({}, {"CPU": 4}, None),
        ({"scaling": {"num_gpus": 1}}, {"CPU": 4}, "asks for 1 GPU"),
        ({"scaling": {"num_gpus": 1}}, {"CPU": 4, "GPU": 1}, None),
        ({"scaling": {"num_gpus": 1}, "min_vram_gb": 8}, {"CPU": 4, "GPU": 1}, "MAX_VRAM_USAGE_GB allows 6"),
        ({"engine_options": {"tensor_parallel_size": 4}}, {"CPU": 4, "GPU": 2}, "asks for 4 GPU"),
        ({"scaling": {"num_cpus": 8}}, {"CPU": 4}, "asks for 8 CPU"),
        ({"min_vram_gb": 4}, {"CPU": 4}, "no driver"),
    ],
)
def test_a_model_that_can_never_be_placed_is_refused_with_the_reason(
    fields: dict[str, Any], cluster: dict[str, float], words: str | None
) -> None:
    problem = placement_problem(spec(**fields), CONFIG, cluster, True, GpuReport(reason="no driver"))
    assert problem is None if words is None else words in (problem or "")


def test_a_model_without_a_gpu_of_its_own_may_still_fit_on_one() -> None:
    report = GpuReport((GpuMemory(0, "GPU", 8.0, 0.0, 8.0),))
    assert placement_problem(spec(min_vram_gb=4), CONFIG, {"CPU": 4}, True, report) is None
