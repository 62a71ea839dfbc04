"""A flow is edited, or gone, while its runs wait, are queued or handed over: they keep what they began."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.stores.open_store import open_store
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import Conflict, NotFound
from registries.contracts.runs import TERMINAL_STATUSES, Decision
from registries.loader import load_catalog
from tests.chaos.engine.checker import TENANT, calls_in, problems_of
from tests.chaos.engine.runs import config_for, new_run, spec_for
from tests.chaos.engine.stage import engines
from tests.polling import until

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]
APPROVE = Decision(action="approve")
PROMPTS = {
    "prompts": [
        {"id": "tale_check", "version": 1, "inputs": ["input"], "text": "{{input}}\nCheck it."},
        {"id": "tale_fix", "version": 1, "inputs": ["input"], "text": "{{input}}\nFix it."},
    ]
}


def _asks(id: str, prompt: str) -> dict[str, Any]:
    return {"id": id, "kind": "generate", "role": id, "prompt": prompt, "model": "tier:light"}


FIRST, LAST = _asks("first", "tale_check"), _asks("last", "tale_fix")
APPROVER = {"id": "approver", "kind": "approve", "role": "approver", "params": {"question": "Go on?"}}


def _flow(*nodes: dict[str, Any]) -> dict[str, Any]:
    names = [node["id"] for node in nodes]
    edges = [{"source": one, "target": next} for one, next in pairwise(names)]
    return {"name": "tale", "nodes": list(nodes), "edges": edges, "output": {"answer": names[::-1]}}


OLD = _flow(FIRST, APPROVER, LAST)
CHANGES: dict[str, dict[str, Any] | None] = {
    "prompts change places": _flow(_asks("first", "tale_fix"), APPROVER, _asks("last", "tale_check")),
    "a node is renamed": _flow(FIRST, APPROVER, _asks("closing", "tale_fix")),
    "the next node is removed": _flow(FIRST, APPROVER),
    "the waiting node is removed": _flow(FIRST, LAST),
    "the finished node is removed": _flow(_asks("opening", "tale_check"), APPROVER, LAST),
    "the flow is gone": None,
}


@dataclass
class Folder:
    """A catalog folder with one flow, and a runtime over it."""

    path: Path
    home: Path

    @property
    def config(self) -> RuntimeConfig:
        return config_for(self.home, catalog_dirs=(str(self.path),))

    def write(self, flow: dict[str, Any] | None) -> None:
        for name, value in (("prompts", PROMPTS), ("flows", flow)):
            file = self.path / name / "tale.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            if value is not None:
                file.write_text(yaml.safe_dump(value))

    async def accept(self, store: Store, numbers: Sequence[int]) -> list[str]:
        """Runs of the flow as it is written now."""
        catalog = load_catalog(self.config)
        return [(await store.accept(new_run(n, "tale", catalog=catalog))).run_id for n in numbers]


async def _in_status(store: Store, run_ids: Sequence[str], status: str) -> None:
    async def there() -> bool:
        runs = [await store.get(run_id, TENANT) for run_id in run_ids]
        return all(run is not None and run["status"] == status for run in runs)

    await until(there, 30, every_s=0.05)


async def _approved_to_the_end(store: Store, run_ids: Sequence[str]) -> None:
    async def there() -> bool:
        runs = [await store.get(run_id, TENANT) for run_id in run_ids]
        for run in runs:
            assert run is not None
            if run["status"] == "waiting":
                with suppress(Conflict):
                    await store.resume(run["run_id"], TENANT, APPROVE, 60.0)
        return all(run is not None and run["status"] in TERMINAL_STATUSES for run in runs)

    await until(there, 60, every_s=0.05)


async def _result_of(folder: Path, flow: dict[str, Any]) -> dict[str, Any]:
    """What one run of this flow comes to when nothing changes."""
    calm = Folder(folder / "catalog", folder / "home")
    calm.write(flow)
    store = await open_store(calm.config)
    (run_id,) = await calm.accept(store, [0])
    async with engines(spec_for(calm.config), 1):
        await _approved_to_the_end(store, [run_id])
    run = await store.get(run_id, TENANT)
    await store.close()
    assert run is not None and run["status"] == "completed"
    result: dict[str, Any] = run["result"]
    return result


@pytest.mark.parametrize("change", CHANGES)
async def test_runs_keep_the_flow_that_they_began(tmp_path: Path, change: str) -> None:
    changed = CHANGES[change]
    reference = await _result_of(tmp_path / "old", OLD)
    folder = Folder(tmp_path / "catalog", tmp_path / "home")
    folder.write(OLD)
    store = await open_store(folder.config)
    waiting, handed_over = await folder.accept(store, range(4)), await folder.accept(store, range(4, 8))
    async with engines(spec_for(folder.config), 1) as stage:
        await _in_status(store, [*waiting, *handed_over], "waiting")
        done = len(calls_in(stage.journal))
    for run_id in handed_over:
        await store.resume(run_id, TENANT, APPROVE, 60.0)
    # So slow that the engine, told to end, must hand its runs over in the middle of their last node.
    async with engines(spec_for(folder.config, call_s=60.0), 1) as stage:
        await until(lambda: len(calls_in(stage.journal)) >= done + len(handed_over), 30)
    queued = await folder.accept(store, range(8, 12))
    await _in_status(store, [*handed_over, *queued], "queued")
    for run_id in handed_over:
        assert (await store.events(run_id, TENANT))[-1].type == "run.released"

    folder.write(changed)
    new: list[str] = []
    if changed is not None:
        new = await folder.accept(store, range(12, 16))
    else:
        with pytest.raises(NotFound):
            await folder.accept(store, [12])
    async with engines(spec_for(folder.config), 2):
        await _approved_to_the_end(store, [*waiting, *handed_over, *queued, *new])
    old = [*waiting, *handed_over, *queued]
    assert await problems_of(store, old, reference) == []
    versions = {(await store.get(run_id, TENANT) or {})["flow_version"] for run_id in old}
    assert versions == {reference["flow_version"]}
    if changed is not None:
        fresh = await _result_of(tmp_path / "new", changed)
        assert fresh["flow_version"] != reference["flow_version"]
        assert await problems_of(store, new, fresh) == []
        assert {(await store.get(run_id, TENANT) or {})["flow_version"] for run_id in new} == {
            fresh["flow_version"]
        }
    await store.close()


async def test_a_prompt_that_is_gone_fails_the_run_by_name_and_a_restart_goes_on(tmp_path: Path) -> None:
    reference = await _result_of(tmp_path / "old", OLD)
    folder = Folder(tmp_path / "catalog", tmp_path / "home")
    folder.write(OLD)
    store = await open_store(folder.config)
    (run_id,) = await folder.accept(store, [0])
    async with engines(spec_for(folder.config), 1) as stage:
        await _in_status(store, [run_id], "waiting")
    folder.write(None)
    await asyncio.to_thread((folder.path / "prompts" / "tale.yaml").unlink)
    async with engines(spec_for(folder.config), 1):
        await _approved_to_the_end(store, [run_id])
    run = await store.get(run_id, TENANT)
    assert run is not None and run["status"] == "failed"
    assert "tale_fix" in run["result"]["error"]["message"]
    folder.write(OLD)
    await store.restart(run_id, TENANT, 60.0)
    async with engines(spec_for(folder.config), 1):
        await _approved_to_the_end(store, [run_id])
    assert await problems_of(store, [run_id], reference, stage.journal) == []
    await store.close()
