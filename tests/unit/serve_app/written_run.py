"""A run whose events a test writes itself, into a real store."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from actors.stores.open_store import open_store
from actors.stores.records import ClaimedRun, NewRun, RunWrite
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.runs import RunEvent, RunOrder, RunRequest, RunResult

ORDER = RunOrder(
    run_id="r", request_id="q", request=RunRequest(prompt="hi", flow_type="linear"), deadline_s=60.0
)


@contextlib.asynccontextmanager
async def sqlite_store() -> AsyncIterator[Store]:
    """A real store, gone after the block."""
    with tempfile.TemporaryDirectory(prefix="parley-store-") as folder:
        store = await open_store(RuntimeConfig(home=folder))
        try:
            yield store
        finally:
            await store.close()


class WrittenRun:
    """Accepted and held by the test; ``seq`` is the last event."""

    def __init__(self, store: Store, claimed: ClaimedRun) -> None:
        self.store = store
        self.run_id = claimed.order.run_id
        self.seq = claimed.last_seq
        self._claimed = claimed

    @classmethod
    async def begin(cls, store: Store, run_id: str = "r") -> WrittenRun:
        order = ORDER.model_copy(update={"run_id": run_id})
        claimed = await store.claim(NewRun(order, "v1", {}), "test", 60.0, 3)
        assert claimed is not None
        return cls(store, claimed)

    def event(self, type: str, text: str = "", **data: Any) -> RunEvent:
        """The next event; a token takes no number of its own."""
        self.seq += type != "node.token"
        told = {"text": text, **data} if text else data
        return RunEvent.model_validate(
            {"run_id": self.run_id, "seq": self.seq, "time": 1.0, "type": type, "node": "n", "data": told}
        )

    async def write(self, count: int, text: str = "", tokens: int = 0) -> list[RunEvent]:
        """Commit ``count`` durable events; ``tokens`` follow each of them, uncommitted."""
        events = []
        for _ in range(count):
            events.append(self.event("round.started", text))
            events += [self.event("node.token", "t") for _ in range(tokens)]
        durable = tuple(event for event in events if event.type != "node.token")
        if durable:
            await self.store.commit(self._claimed.lease, RunWrite(events=durable))
        return events

    async def end(self, status: str = "completed") -> list[RunEvent]:
        """Commit the terminal event."""
        values = {"run_id": self.run_id, "flow": "linear", "flow_version": "v1", "status": status}
        result = RunResult.model_validate(values)
        event = self.event(f"run.{status}", result=result.model_dump(mode="json"))
        await self.store.finish(self._claimed.lease, result, RunWrite(events=(event,)))
        return [event]
