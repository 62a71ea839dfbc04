"""vLLM's stat logger as we need it: figures that are read, not logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class VllmProgress:
    """What the engine last said. Has the methods of vLLM's StatLoggerBase without importing it."""

    running: int = 0
    waiting: int = 0
    kv_cache_use: float = 0.0
    tokens: int = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Called by vLLM after every step."""
        if scheduler_stats is not None:
            self.running = scheduler_stats.num_running_reqs
            self.waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            self.kv_cache_use = scheduler_stats.kv_cache_usage
        if iteration_stats is not None:
            self.tokens += iteration_stats.num_generation_tokens

    def log(self) -> None:
        """Part of vLLM's interface; nothing is logged."""

    def log_engine_initialized(self) -> None:
        """Part of vLLM's interface."""

    def record_sleep_state(self, *_: Any, **__: Any) -> None:
        """Part of vLLM's interface."""
