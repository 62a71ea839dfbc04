"""Counters summed up and gauges remembered, told to Ray once a second."""

from __future__ import annotations

import atexit
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

REPORT_EVERY_S = 1.0
"""Ray's agent drops a gauge after two report intervals, and an interval is never under one second."""

MAX_GAUGES = 512
"""Label sets kept; past it the one that was longest without a new value is let go."""

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A family's name and its labels, which every caller gives in one order."""


class AddingCounter(Protocol):
    """What ray.util.metrics.Counter has."""

    def inc(self, value: float, tags: dict[str, str]) -> None:
        """Add the value, which is above 0, for these labels."""
        ...


class SettableGauge(Protocol):
    """What ray.util.metrics.Gauge has."""

    def set(self, value: float, tags: dict[str, str]) -> None:
        """Take the value for these labels."""
        ...


class SeriesKeeper:
    """Reports every ``report_every_s`` from one daemon thread: sums since the last time, and every gauge.

    A call of Ray's metrics takes several times what a sum in a dictionary does, and a run counts two dozen
    things. Gauges are repeated for an agent that forgets those it has not heard of lately. The thread starts
    with the first series and ends with ``stop`` or the process, which loses what was not reported. Safe from
    any thread.
    """

    def __init__(self, report_every_s: float = REPORT_EVERY_S, max_gauges: int = MAX_GAUGES) -> None:
        self._report_every_s = report_every_s
        self._max_gauges = max_gauges
        self._sums: dict[Series, float] = {}
        self._counters: dict[str, AddingCounter] = {}
        self._gauges: OrderedDict[Series, tuple[SettableGauge, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._reporting = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, name: str, counter: AddingCounter, value: float, labels: Mapping[str, str]) -> None:
        """Count; reported as one sum with what else comes until then."""
        key = (name, tuple(labels.items()))
        with self._lock:
            self._counters[name] = counter
            self._sums[key] = self._sums.get(key, 0.0) + value
            self._ensure_thread()

    def set(self, name: str, gauge: SettableGauge, value: float, labels: Mapping[str, str]) -> None:
        """Report the value from now on, until a newer one replaces it."""
        key = (name, tuple(labels.items()))
        with self._lock:
            self._gauges[key] = (gauge, value)
            self._gauges.move_to_end(key)
            if len(self._gauges) > self._max_gauges:
                self._gauges.popitem(last=False)
            self._ensure_thread()

    def report(self) -> None:
        """Tell Ray now."""
        with self._reporting:
            with self._lock:
                sums, self._sums = self._sums, {}
                gauges = list(self._gauges.items())
            for (name, labels), total in sums.items():
                if total > 0:
                    self._counters[name].inc(total, dict(labels))
            for (_, labels), (gauge, value) in gauges:
                gauge.set(value, dict(labels))

    def stop(self) -> None:
        """End the thread; nothing is reported by itself from here on."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(self._report_every_s)
        atexit.unregister(self.stop)

    def _ensure_thread(self) -> None:
        if self._thread is None and not self._stopped.is_set():
            self._thread = threading.Thread(target=self._run, name="series-keeper", daemon=True)
            self._thread.start()
            atexit.register(self.stop)

    def _run(self) -> None:
        while not self._stopped.wait(self._report_every_s):
            self.report()
