"""The GPU guard: what memory there is, and whether a model fits. Asks NVML, never starts CUDA."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from registries.contracts.errors import CapacityError

GB = 1024**3


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One device; sizes in GB (2**30 bytes)."""

    index: int
    name: str
    total_gb: float
    used_gb: float
    free_gb: float


@dataclass(frozen=True, slots=True)
class GpuReport:
    """Devices, or the sentence that says why there are none."""

    devices: tuple[GpuMemory, ...] = ()
    reason: str | None = None


def read_gpus(nvml: Any = None) -> GpuReport:
    """Every device that NVML shows; without driver or library an empty report with its reason.

    ``nvml`` is the pynvml module, or something with its functions.
    """
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return GpuReport(reason="pynvml is not installed")
    try:
        with _nvml(nvml):
            return GpuReport(tuple(_read(nvml, index) for index in range(nvml.nvmlDeviceGetCount())))
    except nvml.NVMLError as error:
        return GpuReport(reason=f"no NVIDIA GPU can be used here: {error}")


def is_gpu_build() -> bool:
    """Whether the PyTorch that is installed can use a GPU at all; asks its version, never imports it."""
    try:
        return "+cpu" not in importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False


@contextmanager
def _nvml(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _read(nvml: Any, index: int) -> GpuMemory:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuMemory(
        index, str(nvml.nvmlDeviceGetName(handle)), memory.total / GB, memory.used / GB, memory.free / GB
    )


def get_available_vram(read: Callable[[], GpuReport] = read_gpus) -> float:
    """Free GB on the emptiest device, 0.0 without a GPU."""
    return max((device.free_gb for device in read().devices), default=0.0)


def can_load_model(
    size_gb: float,
    max_vram_usage_gb: float | None = None,
    read: Callable[[], GpuReport] = read_gpus,
) -> bool:
    """Whether ``size_gb`` fits on one device and within MAX_VRAM_USAGE_GB for one model.

    A model that needs no VRAM always fits.
    """
    return refusal(size_gb, max_vram_usage_gb, read()) is None


def ensure_fits(size_gb: float, max_vram_usage_gb: float, model: str, report: GpuReport) -> None:
    """Raise CapacityError(param="min_vram_gb") with the sentence of ``refusal``."""
    reason = refusal(size_gb, max_vram_usage_gb, report)
    if reason is not None:
        raise CapacityError(f"model {model} does not fit: {reason}", "min_vram_gb")


def ensure_gpus(num_gpus: float | None, model: str, report: GpuReport) -> None:
    """Raise CapacityError(param="scaling.num_gpus") when GPUs are asked for and there are none."""
    if num_gpus and not report.devices:
        raise CapacityError(
            f"model {model} asks for {num_gpus:g} GPU(s), but {report.reason or 'there is no GPU'}",
            "scaling.num_gpus",
        )


def refusal(size_gb: float, max_vram_usage_gb: float | None, report: GpuReport) -> str | None:
    """Why a model of that size cannot be loaded; None when it can."""
    if size_gb <= 0:
        return None
    if max_vram_usage_gb is not None and size_gb > max_vram_usage_gb:
        return f"it needs {size_gb:g} GB of VRAM, MAX_VRAM_USAGE_GB allows {max_vram_usage_gb:g}"
    if not report.devices:
        return f"it needs {size_gb:g} GB of VRAM, but {report.reason or 'there is no GPU'}"
    free = max(device.free_gb for device in report.devices)
    if size_gb > free:
        return f"it needs {size_gb:g} GB of VRAM, the emptiest GPU has {free:.1f} GB free"
    return None


def vram_slots(size_gb: float, max_vram_usage_gb: float, report: GpuReport) -> int:
    """How many more models of that size fit on this machine's devices."""
    if size_gb <= 0 or size_gb > max_vram_usage_gb:
        return 0
    return sum(int(device.free_gb // size_gb) for device in report.devices)


def gpu_slots(free_gpus: float, num_gpus: float) -> int:
    """How many more replicas that reserve ``num_gpus`` each (more than 0) Ray's free GPUs of a node take."""
    # Shares come back as sums of floats: three tenths may read 0.29999999999999993.
    return int(free_gpus / num_gpus + 1e-6)
