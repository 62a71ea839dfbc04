"""What each method asks and how its answer is read, in both clients alike."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from registries.contracts.errors import BudgetError, Conflict, InternalError, KeyReused, NotFound, StoreFull
from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import RunRequest
from serve_app.client import AsyncClient, Client, Connection, NotRunning, Retries
from serve_app.client.answers import RunDetail, run_event, tolerant
from tests.unit.serve_app.sample_answers import GENERATION, RUN, event

HERE = Connection("http://parley", "key")
AT_ONCE = Retries(base_s=0)
ASK = RunRequest(prompt="x", flow_type="linear")
SUMMARY = {"run_id": "r", "status": "queued", "flow": "linear", "flow_version": "v", "created_at": 1.5}
ROW = {**SUMMARY, "status": "completed", "prompt": "x", "answer": "85", "started_at": 2.0, "finished_at": 3.5}
DETAIL: dict[str, Any] = {
    **ROW,
    "result": {**RUN, "newer": 1},
    "nodes": [{**RUN["nodes"][0], "newer": {"deep": 1}}],
    "execution_log": [event("run.queued"), event("run.paused", seq=2)],
    "checkpoints": [{"checkpoint_id": "c1", "parent_id": None, "step": 1, "next": ["refiner"]}],
    "feedback": [{"user": "admin", "rating": 1, "comment": None, "created_at": 4.0}],
    "cost_usd": 0.0015,
    "newer": True,
}
HEALTH = {"score": 0.9, "parts": {"errors": {"score": 0.8, "weight": 2, "value": 0.01, "why": "1 of 100"}}}
FIGURES = {"since": 1.0, "until": 2.0, "step_s": 3600.0, "totals": {"runs": 2}}
Answer = Callable[[httpx.Request], httpx.Response]


def blocking(answer: Answer, method: str, *args: Any, **kwargs: Any) -> Any:
    with Client(connection=HERE, transport=httpx.MockTransport(answer), retries=AT_ONCE) as client:
        made = getattr(client, method)(*args, **kwargs)
        return list(made) if inspect.isgenerator(made) else made


def in_a_loop(answer: Answer, method: str, *args: Any, **kwargs: Any) -> Any:
    async def ask() -> Any:
        transport = httpx.MockTransport(answer)
        async with AsyncClient(connection=HERE, transport=transport, retries=AT_ONCE) as client:
            made = getattr(client, method)(*args, **kwargs)
            return [item async for item in made] if inspect.isasyncgen(made) else await made

    return asyncio.run(ask())


both = pytest.mark.parametrize("ask", [blocking, in_a_loop])
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], str, Any, Any]] = [
    # method, arguments, keywords, request, its body, the answer
    (
        "create_run",
        (ASK,),
        {},
        "POST /api/runs",
        {"prompt": "x", "flow_type": "linear", "mode": "background"},
        SUMMARY,
    ),
    ("runs", (), {}, "GET /api/runs", None, {"runs": [ROW], "next_cursor": None}),
    (
        "runs",
        ("c/1",),
        {"status": ("failed", "waiting"), "flow": "a b", "limit": 2, "created_after": 1.5},
        "GET /api/runs?status=failed%2Cwaiting&flow=a+b&limit=2&created_after=1.5&cursor=c%2F1",
        None,
        {"runs": [], "next_cursor": None},
    ),
    ("get_run", ("r/1",), {}, "GET /api/runs/r%2F1?log=true&state=false", None, DETAIL),
    ("get_run", ("r",), {"log": False, "state": True}, "GET /api/runs/r?log=false&state=true", None, DETAIL),
    ("cancel_run", ("r",), {}, "POST /api/runs/r/cancel", {}, {"run_id": "r", "status": "running"}),
    ("restart_run", ("r",), {}, "POST /api/runs/r/restart", {}, SUMMARY),
    ("restart_run", ("r", 9.0), {}, "POST /api/runs/r/restart", {"deadline_s": 9.0}, SUMMARY),
    ("fork_run", ("r",), {}, "POST /api/runs/r/fork", {}, SUMMARY),
    (
        "fork_run",
        ("r", "c1", {"outputs": {"creator": "8"}}, {"seed": 2}),
        {},
        "POST /api/runs/r/fork",
        {"checkpoint_id": "c1", "state": {"outputs": {"creator": "8"}}, "request": {"seed": 2}},
        SUMMARY,
    ),
    ("resume_run", ("r", "approve"), {}, "POST /api/runs/r/resume", {"action": "approve"}, SUMMARY),
    (
        "resume_run",
        ("r", "edit", "better", "because", 60.0),
        {},
        "POST /api/runs/r/resume",
        {"action": "edit", "text": "better", "comment": "because", "deadline_s": 60.0},
        SUMMARY,
    ),
    (
        "resume_run",
        ("r", "approve"),
        {"interrupt_id": "i-1"},
        "POST /api/runs/r/resume",
        {"action": "approve", "interrupt_id": "i-1"},
        SUMMARY,
    ),
    (
        "give_feedback",
        ("r", 0.0),
        {},
        "POST /api/runs/r/feedback",
        {"rating": 0.0},
        {"run_id": "r", "rating": 0, "comment": None},
    ),
    ("stats", (), {}, "GET /api/stats?hours=24", None, FIGURES),
    ("user_stats", ("a/b", 2), {}, "GET /api/stats/users/a%2Fb?hours=2", None, {**FIGURES, "user": "a/b"}),
    ("health_score", (), {}, "GET /api/stats/health?hours=1", None, HEALTH),
]


@both
@pytest.mark.parametrize(("method", "args", "kwargs", "asked", "body", "answer"), CALLS)
def test_a_method_is_one_request(
    ask: Any, method: str, args: Any, kwargs: Any, asked: str, body: Any, answer: Any
) -> None:
    seen: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202 if request.method == "POST" else 200, json=answer)

    got = ask(respond, method, *args, **kwargs)
    (request,) = seen
    assert f"{request.method} {request.url.raw_path.decode()}" == asked
    assert (json.loads(request.content) if request.content else None) == body
    assert request.headers["x-api-key"] == "key"
    # A model call outlives its client by a key: it is sent for those alone who give one.
    makes_key = request.method == "POST" and request.url.path != "/api/inference"
    assert (len(request.headers.get("idempotency-key", "")) == 36) == makes_key
    shown = got.model_dump(mode="json", exclude_unset=True)
    assert {name for name in answer if name != "newer"} >= set(shown), "nothing invented"


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        public = {n: f for n, f in vars(kind).items() if inspect.isfunction(f) and not n.startswith("_")}
        return {
            n.removeprefix("a") if n == "aclose" else n: list(inspect.signature(f).parameters)
            for n, f in public.items()
        }

    def documented(kind: type) -> dict[str, str | None]:
        return {n: f.__doc__ for n, f in vars(kind).items() if not n.startswith("_") and "close" not in n}

    assert methods(Client) == methods(AsyncClient) and len(methods(Client)) > 20
    assert documented(Client) == documented(AsyncClient)


def test_a_detail_has_types_and_survives_newer_runtimes() -> None:
    detail = tolerant(RunDetail, DETAIL)
    assert detail.outcome.answer == "85" and detail.duration_s == 1.5 and detail.ended
    assert detail.nodes[0].model_resolved == "nano-m" and detail.checkpoints[0].next == ("refiner",)
    assert [e.type for e in detail.execution_log[:1]] == ["run.queued"]
    under_way = tolerant(
        RunDetail,
        {"run_id": "r", "status": "running", "answer": None, "checkpoints": None, "execution_log": None},
    )
    assert under_way.outcome.status == "running" and under_way.duration_s is None and not under_way.ended
    assert run_event(event("run.paused", seq=7)).type == "run.paused"  # type: ignore[comparison-overlap]
    with pytest.raises(InternalError, match="no RunDetail"):
        tolerant(RunDetail, {"status": "running"})


@both
def test_all_pages_are_read(ask: Any) -> None:
    pages = {None: (["3", "2"], "b"), "b": (["1"], None)}

    def respond(request: httpx.Request) -> httpx.Response:
        assert request.url.params["flow"] == "linear"
        ids, cursor = pages[request.url.params.get("cursor")]
        rows = [{"run_id": i, "status": "completed"} for i in ids]
        return httpx.Response(200, json={"runs": rows, "next_cursor": cursor})

    assert [row.run_id for row in ask(respond, "iter_runs", flow="linear")] == ["3", "2", "1"]


@both
@pytest.mark.parametrize(("until", "last"), [("waiting", "waiting"), ("end", "completed")])
def test_a_run_is_waited_for(ask: Any, until: str, last: str) -> None:
    states: list[Any] = ["queued", None, "running", 503, "waiting", "queued", "completed"]

    def respond(request: httpx.Request) -> httpx.Response:
        state = states.pop(0)
        if state is None:
            raise httpx.ReadError("torn")
        if state == 503:
            return httpx.Response(503, json={"error": {"code": "store_unavailable", "message": "x"}})
        return httpx.Response(200, json={"run_id": "r", "status": state})

    assert ask(respond, "wait_for", "r", until=until).status == last


@both
def test_waiting_ends_with_its_time(ask: Any) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"run_id": "r", "status": "running"})

    with pytest.raises(BudgetError, match="run r is running; it goes on") as caught:
        ask(respond, "wait_for", "r", 0.12)
    assert caught.value.param == "timeout_s"
    with pytest.raises(NotFound):
        ask(lambda r: error(404, "not_found"), "wait_for", "r")


def error(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"error": {"code": code, "message": "no", "request_id": "q", "retryable": status in (429, 503)}}
    return httpx.Response(status, json=body, headers=headers)


@both
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "not_found", NotFound),
        (409, "conflict", Conflict),
        (422, "idempotency_key_reused", KeyReused),
        (507, "store_full", StoreFull),
    ],
)
def test_a_refusal_is_an_error_of_ours_and_final(ask: Any, status: int, code: str, kind: type) -> None:
    asked = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return error(status, code)

    with pytest.raises(kind) as caught:
        ask(respond, "cancel_run", "r")
    context = caught.value.context  # type: ignore[attr-defined]
    assert context == {"status": status, "code": code, "request_id": "q"} and len(asked) == 1


@both
@pytest.mark.parametrize(
    ("method", "args", "answer"),
    [
        ("run", (ASK,), RUN),
        ("create_run", (ASK,), SUMMARY),
        ("cancel_run", ("r",), SUMMARY),
        ("restart_run", ("r",), SUMMARY),
        ("fork_run", ("r",), SUMMARY),
        ("resume_run", ("r", "approve"), SUMMARY),
        ("give_feedback", ("r", 1.0), {"rating": 1.0}),
    ],
)
def test_the_callers_own_key_is_used(ask: Any, method: str, args: Any, answer: Any) -> None:
    keys = []

    def respond(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        return httpx.Response(202, json=answer)

    ask(respond, method, *args, idempotency_key="order-17")
    assert keys == ["order-17"]


@both
def test_a_broken_connection_is_no_second_run(ask: Any) -> None:
    keys = []

    def respond(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) < 3:
            raise httpx.RemoteProtocolError("the server went away")
        return httpx.Response(200, json=RUN)

    assert ask(respond, "run", ASK).answer == "85"
    assert len(keys) == 3 and len(set(keys)) == 1
    keys.clear()
    keys += ["", ""]
    with pytest.raises(NotRunning):
        ask(lambda r: (_ for _ in ()).throw(httpx.ConnectError("no")), "run", ASK)


CALL = GenerationRequest(prompt="x")


@both
def test_a_broken_connection_is_no_second_model_call(ask: Any) -> None:
    keys = []

    def respond(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) < 3:
            raise httpx.RemoteProtocolError("the server went away")
        if json.loads(request.content)["stream"]:
            return httpx.Response(200, text=f"event: result\ndata: {json.dumps(GENERATION)}\n\n")
        return httpx.Response(200, json=GENERATION)

    assert ask(respond, "inference", CALL, "call-17").text == GENERATION["text"]
    assert keys == ["call-17"] * 3
    keys.clear()
    assert ask(respond, "stream_inference", CALL, "call-17")[-1].text == GENERATION["text"]
    assert keys == ["call-17"] * 3
