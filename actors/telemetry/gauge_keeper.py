"""Gauges set again and again, for an agent that forgets those it has not heard of lately."""

from __future__ import annotations

import atexit
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

REFRESH_EVERY_S = 1.0
"""Ray's agent drops a gauge after two report intervals, and an interval is never under one second."""

MAX_SERIES = 512
"""Label sets kept; past it the one that was longest without a new value is let go."""


class SettableGauge(Protocol):
    """What ray.util.metrics.Gauge has."""

    def set(self, value: float, tags: dict[str, str]) -> None:
        """Take the value for these labels."""
        ...


class GaugeKeeper:
    """Remembers each gauge's last value and sets it again every ``refresh_every_s`` from one daemon thread.

    The thread starts with the first gauge and ends with ``stop`` or the process. Safe from any thread: a
    repeated value never overtakes a newer one.
    """

    def __init__(self, refresh_every_s: float = REFRESH_EVERY_S, max_series: int = MAX_SERIES) -> None:
        self._refresh_every_s = refresh_every_s
        self._max_series = max_series
        self._kept: OrderedDict[tuple[str, frozenset[tuple[str, str]]], tuple[SettableGauge, float]]
        self._kept = OrderedDict()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def set(self, name: str, gauge: SettableGauge, value: float, labels: Mapping[str, str]) -> None:
        """Set the gauge now, and again until a newer value replaces this one."""
        key = (name, frozenset(labels.items()))
        with self._lock:
            gauge.set(value, dict(labels))
            self._kept[key] = (gauge, value)
            self._kept.move_to_end(key)
            if len(self._kept) > self._max_series:
                self._kept.popitem(last=False)
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name="gauge-keeper", daemon=True)
                self._thread.start()
                atexit.register(self.stop)

    def refresh(self) -> None:
        """Set every remembered value once more."""
        with self._lock:
            for (_, labels), (gauge, value) in self._kept.items():
                gauge.set(value, dict(labels))

    def stop(self) -> None:
        """End the thread; values are set once from here on."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(self._refresh_every_s)
        atexit.unregister(self.stop)

    def _run(self) -> None:
        while not self._stopped.wait(self._refresh_every_s):
            self.refresh()
