"""Writes frozen checkpoints of every flow: ``python -m tests.unit.flows.golden.record``.

To be run once for each new STATE_VERSION. Files of earlier versions are never written again: that today's
code goes on with them is what they are for.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from flows.state import STATE_VERSION
from registries.contracts.errors import LeaseLost
from tests.unit.flows.attempts import FailingSaver, Run, told
from tests.unit.flows.fakes import PACKAGE
from tests.unit.flows.golden.frozen import FOLDER, THREAD, freeze


async def record(name: str) -> dict[str, Any]:
    """The run cut off before each visit, and in its middle where nodes run beside each other."""
    flow = PACKAGE.flows.get(name)
    whole = Run(flow, FailingSaver())
    expected = told(await whole.finish())
    stops = []
    for keep in range(whole.saver.results):
        run = Run(flow, FailingSaver(keep=keep))
        try:
            await run.finish()
        except LeaseLost:
            run.saver.heal()
        saved = await run.saver.aget_tuple(THREAD)
        assert saved is not None
        stops.append(freeze(saved))
    return {
        "flow": flow.model_dump(mode="json"),
        "flow_version": flow.version,
        "expected": {"answer": expected["answer"], "nodes": [node[:4] for node in expected["nodes"]]},
        "stops": stops,
    }


def main() -> None:
    """Write what is not there yet."""
    for name in PACKAGE.flows.names():
        path = FOLDER / f"{name}.v{STATE_VERSION}.json"
        if not path.exists():
            found = asyncio.run(record(name))
            path.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
