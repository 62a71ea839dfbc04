from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.gpu import (
    GB,
    GpuMemory,
    GpuReport,
    can_load_model,
    ensure_fits,
    ensure_gpus,
    get_available_vram,
    read_gpus,
    refusal,
    vram_slots,
)
from registries.contracts.errors import CapacityError


def gpus(*free_gb: float) -> GpuReport:
    return GpuReport(tuple(GpuMemory(n, "GPU", 80.0, 80.0 - free, free) for n, free in enumerate(free_gb)))


NONE = GpuReport(reason="no NVIDIA GPU can be used here: driver not loaded")


def test_a_machine_says_what_it_has_or_why_not() -> None:
    report = read_gpus()
    assert report.devices or report.reason
    assert get_available_vram() >= 0


class FakeNvml:
    """pynvml's functions over two devices; ``broken`` fails as a machine without a driver does."""

    class NVMLError(Exception):
        """NVML's own."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise self.NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return f"GPU {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=8 * GB, used=handle * GB, free=(8 - handle) * GB)


def test_devices_are_read_in_gb_and_nvml_is_closed() -> None:
    nvml = FakeNvml()
    report = read_gpus(nvml)
    assert [(device.name, device.total_gb, device.free_gb) for device in report.devices] == [
        ("GPU 0", 8.0, 8.0),
        ("GPU 1", 8.0, 7.0),
    ]
    assert nvml.open == 0


def test_without_a_driver_the_report_says_so() -> None:
    report = read_gpus(FakeNvml(broken=True))
    assert report.devices == ()
    assert "Driver Not Loaded" in (report.reason or "")


def test_the_emptiest_device_counts() -> None:
    assert get_available_vram(lambda: gpus(3, 11, 7)) == 11
    assert get_available_vram(lambda: NONE) == 0


@pytest.mark.parametrize(
    ("size_gb", "limit_gb", "report", "words"),
    [
        (0.0, 6.0, NONE, None),
        (5.0, 6.0, gpus(5.5), None),
        (5.0, None, gpus(1, 24), None),
        (7.0, 6.0, gpus(40), "MAX_VRAM_USAGE_GB allows 6"),
        (5.0, 6.0, gpus(2, 4.5), "4.5 GB free"),
        (5.0, 6.0, NONE, "driver not loaded"),
        (5.0, 6.0, GpuReport(), "there is no GPU"),
    ],
)
def test_fits_or_says_why_not(
    size_gb: float, limit_gb: float | None, report: GpuReport, words: str | None
) -> None:
    assert can_load_model(size_gb, limit_gb, lambda: report) is (words is None)
    reason = refusal(size_gb, limit_gb, report)
    assert (reason is None) if words is None else words in (reason or "")


def test_ensure_fits_names_the_model() -> None:
    ensure_fits(2, 6, "m", gpus(4))
    with pytest.raises(CapacityError, match="model m does not fit") as caught:
        ensure_fits(5, 6, "m", NONE)
    assert caught.value.param == "min_vram_gb"


@given(st.floats(0.1, 100), st.lists(st.floats(0, 80), max_size=8), st.floats(0.1, 100))
def test_slots_agree_with_the_guard(size_gb: float, free: list[float], limit_gb: float) -> None:
    report = gpus(*free)
    slots = vram_slots(size_gb, limit_gb, report)
    assert (slots > 0) == can_load_model(size_gb, limit_gb, lambda: report)
    assert slots * size_gb <= sum(free) + 1e-6


def test_gpus_that_are_asked_for_must_be_there() -> None:
    for wanted in (None, 0.0):
        ensure_gpus(wanted, "m", NONE)
    ensure_gpus(1.0, "m", gpus(10))
    with pytest.raises(CapacityError, match=r"asks for 1 GPU\(s\), but no NVIDIA GPU") as caught:
        ensure_gpus(1.0, "m", NONE)
    assert caught.value.param == "scaling.num_gpus"
