"""The parts that a durable run is made of, with nothing of ours: how many runs a second are there to be had?

Deployed by a job on the bench's cluster: a FastAPI ingress and two runners behind the same HAProxy, one
streamed item by gRPC from runner to ingress, LangGraph with three nodes and its own in-memory checkpoints,
each node one call of the instant upstream. No authentication, limits, events, database, accounting, logs or
metrics: what a runtime of these parts cannot surpass.
"""

from __future__ import annotations

import operator
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict

import aiohttp
import orjson
import ray
from fastapi import FastAPI, Request
from fastapi.responses import Response
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from ray import serve
from ray.serve.schema import LoggingConfig

APP, ROUTE = "bare parts", "/bare"
NODES = ("first", "second", "third")
RUNNERS = 2
_SILENT = LoggingConfig(enable_access_log=False)
_api = FastAPI()


class _State(TypedDict):
    prompt: str
    outputs: Annotated[list[str], operator.add]


class BareRunner:
    """Three calls after one another, checkpointed in memory between them."""

    def __init__(self, upstream_url: str) -> None:
        self._url = f"{upstream_url}/chat/completions"
        self._client: aiohttp.ClientSession | None = None
        graph = StateGraph(_State)
        for name in NODES:
            graph.add_node(name, self._ask)
        for source, target in zip((START, *NODES), (*NODES, END), strict=True):
            graph.add_edge(source, target)
        self._saver = InMemorySaver()
        self._graph: Any = graph.compile(checkpointer=self._saver)

    async def _ask(self, state: _State) -> dict[str, list[str]]:
        if self._client is None:
            self._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = {"model": "bench", "messages": [{"role": "user", "content": state["prompt"]}]}
        async with self._client.post(self._url, data=orjson.dumps(body)) as response:
            answer = orjson.loads(await response.read())
        return {"outputs": [answer["choices"][0]["message"]["content"]]}

    async def result(self, prompt: str) -> AsyncIterator[bytes]:
        """The end alone, as one item of a stream."""
        run_id = uuid.uuid4().hex
        config = {"configurable": {"thread_id": run_id}}
        ended = await self._graph.ainvoke({"prompt": prompt, "outputs": []}, config, durability="sync")
        await self._saver.adelete_thread(run_id)
        yield orjson.dumps({"run_id": run_id, "answer": ended["outputs"][-1]})


@serve.ingress(_api)
class BareFront:
    """One route."""

    def __init__(self, runner: Any) -> None:
        self._results = runner.options(method_name="result", stream=True)

    @_api.post("/")
    async def run(self, request: Request) -> Response:
        """Hand the prompt on, and the end back."""
        prompt = orjson.loads(await request.body())["prompt"]
        async for item in self._results.remote(prompt):
            return Response(item, media_type="application/json")
        return Response(status_code=500)


def deploy(upstream_url: str) -> None:
    """Deploy; the application outlives the job and goes with the cluster.

    Import it: the classes of a module that is run as ``__main__`` travel by value, and a graph's state finds
    its annotations no more.
    """
    ray.init(address="auto", log_to_driver=False)
    deployment: Any = serve.deployment
    options: dict[str, Any] = {"max_ongoing_requests": 200, "logging_config": _SILENT}
    few: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0.1}}
    runner = deployment(BareRunner, num_replicas=RUNNERS, **options, **few).bind(upstream_url)
    front = deployment(BareFront, name="BareFront", **options, **few).bind(runner)
    serve.run(front, name=APP, route_prefix=ROUTE)


def remove() -> None:
    """End its replicas."""
    ray.init(address="auto", log_to_driver=False)
    serve.delete(APP)
