"""Runs that are asked for and looked at over HTTP while the runtime suffers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import aiohttp

from actors.stores.open_store import open_store
from actors.stores.records import RunFilter
from registries.contracts.runs import TERMINAL_STATUSES
from tests.chaos.engine.checker import TENANT, problems_of
from tests.machine_pace import paced
from tests.polling import until
from tests.runtime_cluster import RunningCluster

QUESTION = "What is 48 + 37?"


class BackgroundRuns:
    """``body`` is what every run asks for; ``accepted`` are the ids that the API acknowledged."""

    def __init__(self, cluster: RunningCluster, session: aiohttp.ClientSession, **body: Any) -> None:
        self.accepted: list[str] = []
        self._cluster = cluster
        self._session = session
        self.body = {"flow_type": "challenge", "prompt": QUESTION, "deadline_s": 120, **body}

    async def reference(self) -> dict[str, Any]:
        """The result of the same request without a fault."""
        async with self._session.post("/api/orchestrate", json=self.body) as answer:
            result: dict[str, Any] = await answer.json()
        assert result["status"] == "completed", result
        return result

    async def order(self, count: int) -> list[str]:
        """So many runs, one after another; each must be accepted."""
        found = []
        for _ in range(count):
            async with self._session.post("/api/runs", json=self.body) as answer:
                assert answer.status == 202, await answer.text()
                found.append(str((await answer.json())["run_id"]))
        self.accepted += found
        return found

    async def statuses(self) -> dict[str, str]:
        """Of every accepted run."""
        known = await self._rows()
        return {run_id: known[run_id]["status"] if run_id in known else "lost" for run_id in self.accepted}

    async def cut_off(self) -> int:
        """How many of them had more than one attempt: what the fault has hit."""
        known = await self._rows()
        return sum(known[run_id]["attempts"] > 1 for run_id in self.accepted)

    async def _rows(self) -> dict[str, dict[str, Any]]:
        """What the list of runs tells of them, by id."""
        known: dict[str, dict[str, Any]] = {}
        asked = {"limit": "200"}
        while not known.keys() >= set(self.accepted):
            async with self._session.get("/api/runs", params=asked) as answer:
                assert answer.status == 200, await answer.text()
                page = await answer.json()
            known |= {row["run_id"]: row for row in page["runs"]}
            if page["next_cursor"] is None:
                break
            asked["cursor"] = page["next_cursor"]
        return known

    async def open(self) -> int:
        """How many of them have not ended."""
        return sum(status not in TERMINAL_STATUSES for status in (await self.statuses()).values())

    async def until_ended(self, timeout_s: float, statuses: Collection[str] = TERMINAL_STATUSES) -> None:
        """Until all of them have ended so; AssertionError as soon as one ended otherwise."""

        async def ended() -> bool:
            found = await self.statuses()
            wrong = [run_id for run_id, status in found.items() if status in TERMINAL_STATUSES - {*statuses}]
            assert not wrong, await self._errors(wrong)
            return all(status in statuses for status in found.values())

        await until(ended, timeout_s, every_s=0.2)

    async def _errors(self, run_ids: Sequence[str]) -> dict[str, Any]:
        """What each of these runs says of its end."""
        found = {}
        for run_id in run_ids:
            async with self._session.get(f"/api/runs/{run_id}") as answer:
                run = await answer.json()
            found[run_id] = {name: run.get(name) for name in ("status", "attempts", "deaths", "result")}
        return found

    async def problems(self, reference: dict[str, Any] | None = None) -> list[str]:
        """What the offline checker says of them."""
        return await problems_in(self._cluster, self.accepted, reference)


async def problems_in(
    cluster: RunningCluster, run_ids: Sequence[str], reference: dict[str, Any] | None = None
) -> list[str]:
    """The offline checker over the runtime's own database."""
    store = await open_store(cluster.config)
    try:
        async with asyncio.timeout(paced(30)):
            return await problems_of(store, run_ids, reference)
    finally:
        await store.close()


async def held_by(cluster: RunningCluster, pids: Collection[int]) -> int:
    """How many runs these runners hold; a lease's owner is runtime:node:process:number."""
    store = await open_store(cluster.config)
    try:
        rows = await store.list(TENANT, RunFilter(statuses=("running",), limit=200))
    finally:
        await store.close()
    return sum(int(row["owner"].split(":")[2]) in pids for row in rows if row["owner"])
