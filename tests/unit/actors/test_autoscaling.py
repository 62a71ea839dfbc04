"""The policy over recorded contexts, and its laws over any."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.autoscaling import Load, ModelScalingPolicy, desired_replicas, load_of, replica_metrics

IDLE = Load(1, 1, 0, 0, (0,), (0,), None, 4, 1, 8)
COUNTS = st.integers(0, 20)
SHARES = st.floats(0, 1)
LOADS = st.builds(
    Load,
    running=COUNTS,
    target=COUNTS,
    ongoing=st.floats(0, 1e6),
    queued=st.floats(0, 1e6),
    engine_waiting=st.lists(st.floats(0, 1e4), max_size=20).map(tuple),
    kv_use=st.lists(SHARES, max_size=20).map(tuple),
    room=st.none() | st.integers(-5, 20),
    target_ongoing=st.floats(0.1, 100),
    min_replicas=st.integers(0, 3),
    max_replicas=st.integers(3, 30),
)


@pytest.mark.parametrize(
    ("load", "replicas"),
    [
        (IDLE, 1),
        (replace(IDLE, ongoing=4), 1),
        (replace(IDLE, ongoing=5), 2),
        (replace(IDLE, ongoing=400), 8),
        # a long queue inside the engine counts although the requests per replica are few
        (replace(IDLE, ongoing=3, engine_waiting=(5,)), 2),
        (replace(IDLE, ongoing=3, engine_waiting=(1,)), 1),
        # a full KV cache counts once somebody waits
        (replace(IDLE, ongoing=3, engine_waiting=(1,), kv_use=(0.95,)), 2),
        (replace(IDLE, ongoing=3, kv_use=(0.95,)), 1),
        # asked for and not there yet: one more, not one more each tick
        (replace(IDLE, target=2, ongoing=3, engine_waiting=(9,)), 2),
        # the survivors must hold the KV of all
        (replace(IDLE, running=4, target=4, ongoing=4, kv_use=(0.6, 0.6, 0.6, 0.6)), 4),
        (replace(IDLE, running=4, target=4, ongoing=4, kv_use=(0.3, 0.3, 0.3, 0.3)), 2),
        (replace(IDLE, running=4, target=4, ongoing=0, kv_use=(0, 0, 0, 0)), 1),
        # VRAM admits
        (replace(IDLE, ongoing=400, room=2), 3),
        (replace(IDLE, ongoing=400, room=0), 1),
        (replace(IDLE, running=2, target=2, ongoing=0, room=0), 1),
    ],
)
def test_recorded_loads(load: Load, replicas: int) -> None:
    assert desired_replicas(load) == replicas


@given(LOADS)
def test_always_within_the_bounds(load: Load) -> None:
    assert load.min_replicas <= desired_replicas(load) <= load.max_replicas


@given(LOADS)
def test_never_more_than_fit_unless_the_minimum_says_so(load: Load) -> None:
    if load.room is not None:
        allowed = max(load.min_replicas, load.target, load.running + max(0, load.room))
        assert desired_replicas(load) <= allowed


@given(LOADS, st.floats(0, 1e6))
def test_more_requests_never_mean_fewer_replicas(load: Load, more: float) -> None:
    assert desired_replicas(replace(load, ongoing=load.ongoing + more)) >= desired_replicas(load)


@given(LOADS, st.integers(0, 10))
def test_more_room_never_means_fewer_replicas(load: Load, more: int) -> None:
    if load.room is not None:
        assert desired_replicas(replace(load, room=load.room + more)) >= desired_replicas(load)


@dataclass
class Point:
    value: float


@dataclass
class Config:
    target: float = 4.0

    def get_target_ongoing_requests(self) -> float:
        return self.target


@dataclass
class Context:
    """The fields of Serve's AutoscalingContext that the policy reads."""

    running_replicas: list[str] = field(default_factory=lambda: ["a"])
    target_num_replicas: int = 1
    total_num_requests: float = 0.0
    total_queued_requests: float | None = None
    raw_metrics: Any = None
    config: Any = field(default_factory=Config)
    capacity_adjusted_min_replicas: int = 1
    capacity_adjusted_max_replicas: int = 8


def series(**metrics: list[float]) -> dict[str, dict[str, list[Point]]]:
    """Each value is one replica's newest sample after an older, misleading one."""
    return {
        name: {str(number): [Point(99.0), Point(value)] for number, value in enumerate(values)}
        for name, values in metrics.items()
    }


def test_the_newest_sample_of_each_replica_counts() -> None:
    context = Context(["a", "b"], 2, 5.0, 1.0, series(waiting=[1, 2], kv_cache_use=[0.5, 0.25], room=[3, 2]))
    load = load_of(context, needs_vram=True)
    assert load == Load(2, 2, 5.0, 1.0, (1, 2), (0.5, 0.25), 2, 4.0, 1, 8)
    assert load_of(context, needs_vram=False).room is None


def test_without_figures_a_model_that_needs_vram_stays_as_it_is() -> None:
    assert ModelScalingPolicy(needs_vram=True)(Context(total_num_requests=400.0)) == (1, {})
    assert ModelScalingPolicy()(Context(total_num_requests=400.0)) == (8, {})


def test_figures_that_are_no_numbers_are_left_out() -> None:
    metrics = series(waiting=[float("nan"), 1], kv_cache_use=[float("inf")])
    metrics["waiting"]["empty"] = []
    load = load_of(Context(raw_metrics=metrics), needs_vram=False)
    assert (load.engine_waiting, load.kv_use) == ((1,), ())


@pytest.mark.parametrize(
    "broken",
    [
        Context(raw_metrics=5),
        Context(raw_metrics={"waiting": {"a": ["no point"]}}),
        Context(config=None),
        Context(config=Config(0.0)),
        Context(total_num_requests=float("nan")),
        Context(capacity_adjusted_max_replicas=None),  # type: ignore[arg-type]
    ],
)
def test_nothing_escapes_into_the_controller(broken: Context) -> None:
    replicas, state = ModelScalingPolicy()(broken)
    assert replicas == 1
    assert state["error"]


@given(st.floats() | st.none() | st.text(), st.floats() | st.none(), st.floats() | st.integers())
def test_no_context_raises(requests: Any, queued: Any, value: Any) -> None:
    context = Context(
        total_num_requests=requests, total_queued_requests=queued, raw_metrics=series(waiting=[value])
    )
    replicas, _ = ModelScalingPolicy()(context)
    assert 1 <= replicas <= 8


def test_the_policy_travels_to_the_controller() -> None:
    policy = pickle.loads(pickle.dumps(ModelScalingPolicy(needs_vram=True)))
    assert policy.needs_vram


def test_what_a_replica_records_is_what_the_policy_reads() -> None:
    recorded = replica_metrics({"running": 2, "waiting": 3, "kv_cache_use": 0.5, "other": 1}, 3)
    assert recorded == {"running": 2.0, "waiting": 3.0, "kv_cache_use": 0.5, "room": 3.0}
    assert all(isinstance(value, float) for value in recorded.values())
