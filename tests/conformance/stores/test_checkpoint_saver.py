"""LangGraph's checkpointer on every backend: its own conformance suite, and a graph that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.conformance import validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer

from actors.running.checkpoint_saver import CheckpointSaver
from actors.running.fork_state import fork_state
from actors.stores.open_store import open_store, store_url
from actors.stores.records import CheckpointRow, NewRun
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import StoreError
from tests.conformance.stores.fan_out import BRANCHES, THREAD, fan_out, ran
from tests.polling import until
from tests.store_writer import StoreWriter
from tests.unit.actors.running.forking import Lab

ROOT = Path(__file__).resolve().parents[3]


def saver_on(store: Store) -> CheckpointSaver:
    return CheckpointSaver(store, StoreWriter(store))


async def test_langgraphs_own_suite(store: Store) -> None:
    async def fresh() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
        yield saver_on(store)

    report = await validate(RegisteredCheckpointer("stores", fresh))
    failures = [failure for result in report.results.values() for failure in result.failures]
    assert failures == []
    tested = {name for name, result in report.results.items() if result.detected and result.tests_passed}
    assert tested == {capability.value for capability in ALL_CAPABILITIES}


async def test_after_kill_9_only_the_unfinished_branch_runs_again(
    store: Store, config: RuntimeConfig, tmp_path: Path
) -> None:
    await kill_in_the_middle(store, store_url(config), tmp_path)
    before = dict(ran(tmp_path))
    assert sorted(before) == sorted(BRANCHES)

    result = await fan_out(store, tmp_path).ainvoke(None, THREAD, durability="sync")

    again = ran(tmp_path)[len(BRANCHES) :]
    assert again[0] == ("c", before["c"])
    assert [name for name, _ in again] == ["c", "meet"]
    said = {name: f"{name} heard []" for name in BRANCHES}
    assert result["said"] == {**said, "meet": f"meet heard {list(BRANCHES)}"}


async def test_a_run_that_ended_has_nothing_to_run(store: Store, tmp_path: Path) -> None:
    graph = fan_out(store, tmp_path)
    first = await graph.ainvoke({"said": {}}, THREAD, durability="sync")
    assert await graph.ainvoke(None, THREAD, durability="sync") == first
    assert len(ran(tmp_path)) == len(BRANCHES) + 1


async def test_a_state_is_there_for_another_process(store: Store, config: RuntimeConfig) -> None:
    await put(store, text="a\x00b – “quoted” 🦜", numbers=[1, 2.5, None, True])
    other = await open_store(config)
    found = await saver_on(other).aget_tuple(THREAD)
    await other.close()
    assert found is not None
    assert found.checkpoint["channel_values"] == {
        "text": "a\x00b – “quoted” 🦜",
        "numbers": [1, 2.5, None, True],
    }


async def test_a_fork_is_accepted_with_its_state_and_goes_on_there(store: Store) -> None:
    lab = Lab("challenge", store=store)
    await lab.finish("r1")
    order = lab.order("r2")
    at = await lab.checkpoint_before("refiner")
    rows = await fork_state(store, lab.graphs, lab.flow, "r1", order, at, {"input": {"rounds": 1}})
    spec = lab.flow.model_dump(mode="json")
    await store.accept(NewRun(order, lab.flow.version, spec, parent="r1", checkpoints=rows))
    claimed = await store.claim("r2", "one", 600.0, 3)
    assert claimed is not None and not claimed.is_new
    result = await lab.finish("r2")
    assert lab.path == ["refiner"]
    assert [node.id for node in result.nodes] == ["creator", "challenger", "refiner"]


async def test_a_forged_row_is_an_error_and_runs_nothing(store: Store, tmp_path: Path) -> None:
    trace = tmp_path / "called"
    row = CheckpointRow(
        "r1", "", "c1", None, "pickle", f"cos\nsystem\n(S'touch {trace}'\ntR.".encode(), b"{}"
    )
    await store.keep([row], ())
    with pytest.raises(StoreError, match="never written by this runtime"):
        await saver_on(store).aget_tuple(THREAD)
    assert not trace.exists()


async def put(store: Store, **values: Any) -> None:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = values
    place: Any = {"configurable": {**THREAD["configurable"], "checkpoint_ns": ""}}
    await saver_on(store).aput(place, checkpoint, {"source": "update", "step": 1}, {})


async def kill_in_the_middle(store: Store, url: str, folder: Path) -> None:
    """SIGKILL a process that runs the graph, when two of its branches are committed and the third runs."""
    saver = saver_on(store)
    command = [sys.executable, "-m", "tests.conformance.stores.fan_out", url, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:

        async def is_in_the_middle() -> bool:
            assert process.poll() is None, "the process ended by itself"
            found = await saver.aget_tuple(THREAD)
            said = [w for w in (found.pending_writes if found else None) or [] if w[1] == "said"]
            return len(said) == 2 and len(ran(folder)) == len(BRANCHES)

        try:
            await until(is_in_the_middle, 30.0)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
