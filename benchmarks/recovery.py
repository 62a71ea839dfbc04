"""How soon is a slot free after a cancel, a part back after a kill, a run resumed after everything died?

Every fault is real: a client's cancel, a connection that closes, a deadline, SIGKILL. Slots are counted at
the model's own server; what a killed part cost is the time until runs are answered again one after another.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import psutil

from benchmarks.child import say
from benchmarks.load import Target, ask
from benchmarks.process_tree import runtime_processes, safe_title
from benchmarks.result import Finding, Row, rounded
from benchmarks.stage import DURABLE_FLOW, STUCK, Stage
from benchmarks.tokens import NANO

QUESTION = "recovery"
FREE_S, BACK_S, RESUMED_S = 2.0, 30.0, 60.0
ROUNDS = 5
CALM_ANSWERS = 10
"""So many answers in a row, asked after the kill, count as being back."""
RUNS, TALK = 100, "resumed"
PATIENCE_S = 180.0
PROMPT = "How shall we store passwords?"
_PARTS = {"FlowRunner": "ServeReplica:parley:FlowRunner", "Ingress": "ServeReplica:parley:Ingress"}
_MODEL = f"ServeReplica:model-{NANO}:ModelReplica"


async def measure(stage: Stage) -> Finding:
    """The slots first, then one part after the other, everything at the end."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(headers=stage.runtime.headers, timeout=timeout) as client:
        slots = {
            "cancelled": [await _cancelled(stage, client) for _ in range(ROUNDS)],
            "client gone": [await _client_gone(stage, client) for _ in range(ROUNDS)],
            "deadline passed": [await _late(stage, client) for _ in range(ROUNDS)],
        }
        say(f"slots free after {max(map(max, slots.values())):.2f} s at most")
        run = _target(stage, "/api/orchestrate", {"flow_type": DURABLE_FLOW, "prompt": PROMPT})
        back = {name: await _back_s(stage, client, title, run) for name, title in _PARTS.items()}
        direct = _target(stage, "/api/inference", {"model_key": NANO, "prompt": "48 + 37 =", "max_tokens": 8})
        model_s = await _back_s(stage, client, _MODEL, direct)
        resumed = await _resumed(stage, client)
    rows = (
        *(Row(f"recovery: the model's slot is free, {why}", max(s), "s", FREE_S) for why, s in slots.items()),
        *(Row(f"recovery: answers after kill -9 of the {part}", s, "s", BACK_S) for part, s in back.items()),
        Row(f"recovery: {NANO} answers after kill -9 of its replica, its load included", model_s, "s"),
        Row(
            f"recovery: {RUNS} runs completed after kill -9 of everything and `parley up`",
            resumed["last_s"],
            "s",
            RESUMED_S,
            note=f"API ready {resumed['api_s']:.0f} s, the first {resumed['first_s']:.0f} s",
        ),
    )
    return Finding(QUESTION, rows, {"slots_s": {k: rounded(v) for k, v in slots.items()}, "resumed": resumed})


# -- slots


async def _cancelled(stage: Stage, client: aiohttp.ClientSession) -> float:
    run_id = await _stuck_run(stage, client)
    await _until(lambda: _is(stage, client, 1))
    began = time.perf_counter()
    async with client.post(f"{stage.runtime.url}/api/runs/{run_id}/cancel") as response:
        await response.read()
    return await _until(lambda: _is(stage, client, 0), began)


async def _client_gone(stage: Stage, client: aiohttp.ClientSession) -> float:
    body = {**_stuck_body(), "on_disconnect": "cancel"}
    async with client.post(f"{stage.runtime.url}/api/runs/stream", json=body) as response:
        await _until(lambda: _is(stage, client, 1))
        began = time.perf_counter()
        response.close()
    return await _until(lambda: _is(stage, client, 0), began)


async def _late(stage: Stage, client: aiohttp.ClientSession) -> float:
    deadline_s = 1.5
    accepted = time.perf_counter()
    await _stuck_run(stage, client, deadline_s=deadline_s)
    await _until(lambda: _is(stage, client, 1))
    # Its deadline counts from its acceptance, at the earliest when the request was sent.
    return await _until(lambda: _is(stage, client, 0), accepted + deadline_s)


def _stuck_body(**more: Any) -> dict[str, Any]:
    return {"flow_type": DURABLE_FLOW, "prompt": PROMPT, "models": {"second": STUCK}, **more}


async def _stuck_run(stage: Stage, client: aiohttp.ClientSession, **more: Any) -> str:
    """A background run whose second node never ends."""
    async with client.post(f"{stage.runtime.url}/api/runs", json=_stuck_body(**more)) as response:
        answer = await response.json()
        if response.status != 202:
            raise RuntimeError(f"a run was refused: {response.status} {answer}")
        return str(answer["run_id"])


async def _is(stage: Stage, client: aiohttp.ClientSession, running: int) -> bool:
    async with client.get(_script(stage, "/state")) as response:
        return bool((await response.json())["running"] == running)


def _script(stage: Stage, path: str = "") -> str:
    return f"{stage.stuck_url.removesuffix('/v1')}/script{path}"


# -- parts


async def _back_s(stage: Stage, client: aiohttp.ClientSession, title: str, target: Target) -> float:
    for _ in range(CALM_ANSWERS):
        await ask(client, target)
    victims = [process for process in runtime_processes(stage.runtime.home) if safe_title(process) == title]
    if not victims:
        raise RuntimeError(f"no process is called {title}")
    began = time.perf_counter()
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    calm, first_s = 0, 0.0
    while calm < CALM_ANSWERS:
        if time.perf_counter() - began > PATIENCE_S:
            raise RuntimeError(f"{title} was not back {PATIENCE_S:g} s after it was killed")
        try:
            await ask(client, target)
        except (RuntimeError, aiohttp.ClientError, TimeoutError):
            calm = 0
            await asyncio.sleep(0.05)
            continue
        first_s = time.perf_counter() - began if calm == 0 else first_s
        calm += 1
    say(f"{title}: answers again {first_s:.1f} s after kill -9")
    return first_s


def _target(stage: Stage, path: str, body: dict[str, Any]) -> Target:
    return Target(path, f"{stage.runtime.url}{path}", body, stage.runtime.headers)


# -- everything


async def _resumed(stage: Stage, client: aiohttp.ClientSession) -> dict[str, float]:
    """Runs stuck in their second node or queued behind such; with the kill, their model gets well."""
    more = {"deadline_s": 600, "conversation_id": TALK}
    run_ids = [await _stuck_run(stage, client, **more) for _ in range(RUNS)]
    await _until(lambda: _some_are_stuck(stage, client))
    for process in runtime_processes(stage.runtime.home):
        _kill(process)
    async with client.post(_script(stage), json={"answers": [{"texts": ["Salted and hashed."]}]}) as response:
        response.raise_for_status()
    began = time.perf_counter()
    starting = asyncio.create_task(stage.runtime.start_again())
    try:
        await _until(lambda: _ended(stage, client, 0), began)
        api_s = time.perf_counter() - began
        first_s = await _until(lambda: _ended(stage, client, 1), began)
        last_s = await _until(lambda: _ended(stage, client, RUNS), began)
    finally:
        await starting
    rows = [await _row(stage, client, run_id) for run_id in run_ids]
    if wrong := [row for row in rows if row["status"] != "completed"]:
        raise RuntimeError(f"{len(wrong)} runs did not complete, one is {wrong[0]['status']}")
    again = sum(row["attempts"] > 1 for row in rows)
    say(f"all {RUNS} runs completed {last_s:.1f} s after `parley up` was typed, {again} for the second time")
    return {"api_s": api_s, "first_s": first_s, "last_s": last_s, "begun_before": float(again)}


async def _some_are_stuck(stage: Stage, client: aiohttp.ClientSession) -> bool:
    async with client.get(_script(stage, "/state")) as response:
        return bool((await response.json())["running"] >= 8)


async def _ended(stage: Stage, client: aiohttp.ClientSession, count: int) -> bool:
    """Whether the API answers and says that so many of the stuck runs have completed."""
    query = {"limit": str(RUNS), "status": "completed", "conversation_id": TALK}
    try:
        async with client.get(f"{stage.runtime.url}/api/runs", params=query) as response:
            if response.status != 200:
                return False
            rows = (await response.json())["runs"]
    except (aiohttp.ClientError, TimeoutError):
        return False
    return len(rows) >= count


async def _row(stage: Stage, client: aiohttp.ClientSession, run_id: str) -> dict[str, Any]:
    async with client.get(f"{stage.runtime.url}/api/runs/{run_id}", params={"log": "false"}) as response:
        return dict(await response.json())


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        return


async def _until(condition: Callable[[], Awaitable[bool]], since: float | None = None) -> float:
    """Seconds from ``since`` (now by default) until the condition is true; raises RuntimeError too late."""
    began = time.perf_counter()
    while not await condition():
        if time.perf_counter() - began > PATIENCE_S:
            raise RuntimeError(f"what was waited for did not come within {PATIENCE_S:g} s")
        await asyncio.sleep(0.005)
    return time.perf_counter() - (began if since is None else since)
