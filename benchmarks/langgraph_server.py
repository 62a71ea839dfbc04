"""The peer of durable runs: LangGraph's own in-memory dev server, in an environment of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from actors.free_ports import free_port
from benchmarks.child import await_http, running, say

VERSION = "0.4.40"
JOBS = 32
_GRAPH = '''"""Three nodes after one another, each of which asks the model once."""

import operator
import os
from typing import Annotated, TypedDict

import aiohttp
from langgraph.graph import END, START, StateGraph

UPSTREAM = os.environ["BENCH_UPSTREAM"] + "/chat/completions"
_clients = {}


class State(TypedDict):
    prompt: str
    outputs: Annotated[list[str], operator.add]


async def ask(state: State) -> dict:
    if "one" not in _clients:
        _clients["one"] = aiohttp.ClientSession()
    body = {"model": "bench", "messages": [{"role": "user", "content": state["prompt"]}]}
    async with _clients["one"].post(UPSTREAM, json=body) as response:
        answer = await response.json()
    return {"outputs": [answer["choices"][0]["message"]["content"]]}


builder = StateGraph(State)
for name in ("first", "second", "third"):
    builder.add_node(name, ask)
builder.add_edge(START, "first")
builder.add_edge("first", "second")
builder.add_edge("second", "third")
builder.add_edge("third", END)
graph = builder.compile()
'''


@dataclass(frozen=True, slots=True)
class LangGraphServer:
    """A running dev server with the graph ``three``."""

    base_url: str
    pid: int


def ensure_environment(cache: Path) -> Path:
    """The Python of an environment with langgraph-cli[inmem]; made once, kept in the cache folder."""
    venv = cache / f"langgraph-cli-{VERSION}"
    python, stamp = venv / "bin" / "python", venv / ".complete"
    if not stamp.exists():
        say(f"installing langgraph-cli[inmem]=={VERSION} into an environment of its own (once)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
        subprocess.run([*pip, f"langgraph-cli[inmem]=={VERSION}", "aiohttp"], check=True)
        stamp.write_text(VERSION)
    return python


@asynccontextmanager
async def langgraph_server(cache: Path, folder: Path, upstream_url: str) -> AsyncIterator[LangGraphServer]:
    """No reload, no tracing, no browser, as many jobs at once as the load has in flight."""
    python = await asyncio.to_thread(ensure_environment, cache)
    app = folder / "langgraph"
    app.mkdir(parents=True, exist_ok=True)
    (app / "three.py").write_text(_GRAPH)
    (app / "langgraph.json").write_text(
        json.dumps({"dependencies": [str(app)], "graphs": {"three": f"{app / 'three.py'}:graph"}})
    )
    port, log = free_port(), folder / "langgraph.log"
    options = ["--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", str(port)]
    command = [str(python.parent / "langgraph"), "dev", *options, "--n-jobs-per-worker", str(JOBS)]
    command += ["--config", str(app / "langgraph.json")]
    dropped = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
    environment = {n: v for n, v in os.environ.items() if n not in dropped}
    environment |= {"BENCH_UPSTREAM": upstream_url, "LANGSMITH_TRACING": "false", "LOG_LEVEL": "ERROR"}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
    async with running(command, log, environment, folder=app) as process:
        await await_http(f"http://127.0.0.1:{port}/ok", process, log, 90)
        yield LangGraphServer(f"http://127.0.0.1:{port}", process.pid)
