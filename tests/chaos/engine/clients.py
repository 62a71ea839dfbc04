"""Clients in processes of their own, killed while they ask; the next one asks again what is open.

Like the front door, they work straight on the store; what was answered is in a journal.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from actors.stores.open_store import open_store
from actors.stores.records import IdempotencyKey
from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.runs import Decision
from tests.chaos.engine.checker import TENANT
from tests.chaos.engine.runs import new_run
from tests.machine_pace import paced
from tests.polling import until


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: ``name`` tells it from others, ``key`` is its Idempotency-Key, ``number`` its run's."""

    name: str
    action: Literal["accept", "cancel", "restart", "resume"]
    key: str
    number: int
    decision: Mapping[str, Any] = field(default_factory=dict)

    async def ask(self, store: Store) -> str:
        """The run that it is answered with."""
        key = IdempotencyKey(self.key, self.action)
        new = new_run(self.number, key=key)
        run_id = new.order.run_id
        if self.action == "accept":
            return (await store.accept(new)).run_id
        if self.action == "cancel":
            await store.cancel(run_id, TENANT, key)
            return run_id
        if self.action == "restart":
            return (await store.restart(run_id, TENANT, 600.0, key)).run_id
        return (await store.resume(run_id, TENANT, Decision.model_validate(self.decision), 600.0, key)).run_id


def answers_in(journal: Path) -> dict[str, str]:
    """Name of a request → the run that it was answered with."""
    if not journal.exists():
        return {}
    whole = [line for line in journal.read_text().splitlines() if line.endswith("}")]
    return {entry["name"]: entry["run_id"] for entry in map(json.loads, whole)}


def _client_main(config_json: str, asked_json: str, journal: str) -> None:
    config = RuntimeConfig.model_validate_json(config_json)
    asked = [Asked(**entry) for entry in json.loads(asked_json)]
    asyncio.run(_ask_all(config, asked, journal))


async def _ask_all(config: RuntimeConfig, asked: Sequence[Asked], journal: str) -> None:
    store = await open_store(config)
    out = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    # The first answer of all tells the test that this client is at work.
    os.write(out, b'{"name": "", "run_id": ""}\n')

    async def one(request: Asked) -> None:
        run_id = await request.ask(store)
        os.write(out, (json.dumps({"name": request.name, "run_id": run_id}) + "\n").encode())

    await asyncio.gather(*(one(request) for request in asked))
    await store.close()


async def ask_under_kills(
    config: RuntimeConfig,
    requests: Sequence[Asked],
    folder: Path,
    dice: random.Random,
    clients: int,
    kills: int,
    longest_s: float = 0.03,
) -> dict[str, str]:
    """Ask everything with ``clients`` at once; the answers by name.

    Each client is killed at any moment from its first request on, ``kills`` times in all, and followed by one
    that asks again what has no answer yet. Raises AssertionError when a client fails by itself.
    """
    shares = [requests[number::clients] for number in range(clients)]
    left = [kills // clients + (number < kills % clients) for number in range(clients)]
    answers = await asyncio.gather(
        *(
            _ask_share(config, share, folder / f"client-{number}.jsonl", dice, deaths, longest_s)
            for number, (share, deaths) in enumerate(zip(shares, left, strict=True))
        )
    )
    return {name: run_id for part in answers for name, run_id in part.items()}


async def _ask_share(
    config: RuntimeConfig,
    share: Sequence[Asked],
    journal: Path,
    dice: random.Random,
    deaths: int,
    longest_s: float,
) -> dict[str, str]:
    while True:
        known = answers_in(journal)
        missing = [request for request in share if request.name not in known]
        if not missing:
            return {request.name: known[request.name] for request in share}
        begun = _lines(journal)
        client = _start(config, missing, journal)
        if deaths > 0:
            deaths -= 1
            await _at_work(client, journal, begun)
            await asyncio.sleep(dice.uniform(0.0, longest_s))
            client.kill()
            await asyncio.to_thread(client.join, paced(5))
            continue
        await asyncio.to_thread(client.join, paced(30))
        unanswered = {request.name for request in missing} - answers_in(journal).keys()
        assert client.exitcode is not None, f"a client has not ended, without answers to {sorted(unanswered)}"
        assert client.exitcode == 0, f"a client ended with status {client.exitcode}"


async def _at_work(client: BaseProcess, journal: Path, before: int) -> None:
    await until(lambda: _lines(journal) > before or not client.is_alive(), 30, every_s=0.001)


def _start(config: RuntimeConfig, requests: Sequence[Asked], journal: Path) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.engine.stage", "tests.chaos.engine.clients"])
    asked_json = json.dumps([asdict(request) for request in requests])
    client = context.Process(
        target=_client_main, args=(config.model_dump_json(), asked_json, str(journal)), daemon=True
    )
    client.start()
    return client


def _lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0
