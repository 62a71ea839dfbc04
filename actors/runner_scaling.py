"""How many FlowRunners there should be: by the runs that they hold, those that wait in the database, and how
busy the runners' processes are.

Imports nothing of ours: Serve pickles this module by value into its controller, which may lack our packages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TARGET_SHARE = 0.7
"""Of a runner's slots: fuller ones leave no room for the burst that comes while another one starts."""
BUSY_SHARE = 0.65
"""Of a core. A runner is one Python process, which has no more than one; runs of quick models fill it long
before its slots (measured: about 100 runs of three instant nodes a second, 30 % more with a second runner on
two cores). Beside a front door and a client on two cores, one reaches 0.74 of a core on SQLite, where a
second one gave about a fifth more, and 0.62 on PostgreSQL, where a second one gave nothing (a noisy machine).
Where the cores are taken by others a runner does not get so far, and is given no company."""


def desired_runners(
    held: float,
    queued: float,
    slots: int,
    running: int,
    min_replicas: int,
    max_replicas: int,
    busy: Sequence[float] = (),
) -> int:
    """Enough runners for all held and queued runs at their target share, within the bounds.

    A queue that is not empty while every runner is full asks for one more at least; so does processor time
    (``busy``: the share of a core that each runner's process uses) that would fill more than ``BUSY_SHARE``
    of all of them. Runners whose work would not fit into fewer stay.
    """
    wanted = math.ceil((max(0.0, held) + max(0.0, queued)) / max(1.0, slots * TARGET_SHARE))
    if queued > 0 and running > 0 and held >= slots * running:
        wanted = max(wanted, running + 1)
    # One more at a time: a new runner's own start is work too.
    wanted = max(wanted, min(running + 1, math.ceil(sum(busy) / BUSY_SHARE)))
    return max(min_replicas, min(max_replicas, wanted))


class RunnerScalingPolicy:
    """Serve's policy protocol around ``desired_runners``; never blocks and never raises (see autoscaling)."""

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """(replicas, state); on bad figures the number stays, and the state says why."""
        try:
            newest = {name: _newest(series.values()) for name, series in (ctx.raw_metrics or {}).items()}
            wanted = desired_runners(
                held=sum(newest.get("held", ())),
                queued=max(newest.get("queued", ()), default=0.0),
                slots=self.slots,
                running=len(ctx.running_replicas),
                min_replicas=int(ctx.capacity_adjusted_min_replicas),
                max_replicas=int(ctx.capacity_adjusted_max_replicas),
                busy=newest.get("busy", ()),
            )
            return wanted, {}
        except Exception as error:  # noqa: BLE001 - an exception here would keep every application from scaling
            return ctx.target_num_replicas, {"error": f"{type(error).__name__}: {error}"}


def runner_metrics(held: int, queued: int, busy: float) -> Mapping[str, float]:
    """What a runner records for the policy: its own runs, the whole queue as it last saw it, and its own
    processor time as a share of a core."""
    return {"held": float(held), "queued": float(queued), "busy": busy}


def _newest(series: Iterable[Any]) -> tuple[float, ...]:
    values = (float(points[-1].value) for points in series if points)
    return tuple(value for value in values if math.isfinite(value))
