"""How many replicas a local model should have: our policy for Serve, a pure function and its adapter.

Imports nothing of ours: Serve pickles this module by value into its controller, which may lack our packages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Waiting requests per replica from which a queue inside the engines is no burst but a lack of replicas.
WAITING_PER_REPLICA = 4.0
# vLLM preempts when its KV cache is full; above this share it is better to have another one.
KV_FULL = 0.9
# Survivors of a scale-down must not be fuller than this.
KV_AFTER_SHRINKING = 0.7


@dataclass(frozen=True, slots=True)
class Load:
    """What the policy looks at.

    ``ongoing`` counts requests in replicas and queues, ``queued`` those that no replica has taken,
    ``engine_waiting`` and ``kv_use`` are the engines' own, one figure a replica. ``room`` is how many more
    replicas find a GPU; None: nobody counted, the model names no VRAM.
    """

    running: int
    target: int
    ongoing: float
    queued: float
    engine_waiting: tuple[float, ...]
    kv_use: tuple[float, ...]
    room: int | None
    target_ongoing: float
    min_replicas: int
    max_replicas: int


def desired_replicas(load: Load) -> int:
    """The wanted number within the bounds; delays against flapping are Serve's.

    Grows on requests per replica, on a queue inside the engines and on full KV caches. Shrinks only so far
    that the KV caches of the rest hold what is there. Never grows to where a replica cannot fit.
    """
    wanted = math.ceil(max(0.0, load.ongoing) / load.target_ongoing)
    if _engines_are_full(load):
        # From what runs, not from what was asked for: else each tick adds one while the first still loads.
        wanted = max(wanted, load.running + 1)
    if wanted < load.running:
        wanted = max(wanted, min(load.running, math.ceil(sum(load.kv_use) / KV_AFTER_SHRINKING)))
    if load.room is not None:
        wanted = min(wanted, max(load.target, load.running + max(0, load.room)))
    return max(load.min_replicas, min(load.max_replicas, wanted))


def _engines_are_full(load: Load) -> bool:
    if load.running == 0:
        return False
    waiting = sum(load.engine_waiting)
    if waiting >= WAITING_PER_REPLICA * load.running:
        return True
    return bool(load.kv_use) and min(load.kv_use) >= KV_FULL and waiting + load.queued > 0


class ModelScalingPolicy:
    """Serve's policy protocol around ``desired_replicas``. ``needs_vram``: replicas report where one fits.

    Runs in the controller's loop: never blocks, and never raises, since an exception there would keep every
    later application from being scaled too.
    """

    def __init__(self, needs_vram: bool = False) -> None:
        self.needs_vram = needs_vram

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """(replicas, state); on bad figures the number stays, and the state says why."""
        try:
            return desired_replicas(load_of(ctx, self.needs_vram)), {}
        except Exception as error:  # noqa: BLE001 - see the class: nothing may escape into the controller
            return ctx.target_num_replicas, {"error": f"{type(error).__name__}: {error}"}


def load_of(ctx: Any, needs_vram: bool) -> Load:
    """The Load in Serve's AutoscalingContext; metrics are each replica's newest sample, not a mean.

    A model that needs VRAM and whose replicas have told nothing yet has room for none.
    """
    newest = {name: _newest(series.values()) for name, series in (ctx.raw_metrics or {}).items()}
    rooms = newest.get("room", ())
    return Load(
        running=len(ctx.running_replicas),
        target=int(ctx.target_num_replicas),
        ongoing=_count(ctx.total_num_requests),
        queued=_count(ctx.total_queued_requests),
        engine_waiting=newest.get("waiting", ()),
        kv_use=newest.get("kv_cache_use", ()),
        room=int(min(rooms, default=0.0)) if needs_vram else None,
        target_ongoing=float(ctx.config.get_target_ongoing_requests()),
        min_replicas=int(ctx.capacity_adjusted_min_replicas),
        max_replicas=int(ctx.capacity_adjusted_max_replicas),
    )


def _count(value: float | None) -> float:
    count = float(value or 0.0)
    if not math.isfinite(count):
        raise ValueError(f"{count} is no number of requests")
    return count


def _newest(series: Iterable[Any]) -> tuple[float, ...]:
    """The last value of each replica's series; values that are no finite number are left out."""
    values = (float(points[-1].value) for points in series if points)
    return tuple(value for value in values if math.isfinite(value))


def replica_metrics(stats: Mapping[str, float], room: int) -> dict[str, float]:
    """What a replica records for the policy.

    ``room``: how many more replicas the cluster can place, as far as this one knows. Each replica's figure
    bounds the whole cluster, so the policy takes the smallest.
    """
    return {
        "running": float(stats["running"]),
        "waiting": float(stats["waiting"]),
        "kv_cache_use": float(stats["kv_cache_use"]),
        "room": float(room),
    }
