"""LangGraph's view of our rows, and what a forged row can do: nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Interrupt, Send

from actors.running.checkpoint_codec import CheckpointCodec, config_of, strict_serializer
from actors.running.checkpoint_saver import CheckpointSaver
from actors.stores.records import CheckpointRow, WriteRow
from flows.state import merged
from registries.contracts.errors import LeaseLost, StoreError, ValidationError
from tests.store_writer import StoreWriter
from tests.unit.actors.running.checkpoint_shelf import CheckpointShelf

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


class State(TypedDict):
    log: Annotated[dict[str, str], merged]


def saver_on(shelf: CheckpointShelf) -> CheckpointSaver:
    return CheckpointSaver(shelf, StoreWriter(shelf))


def chain(*names: str, ran: list[str]) -> StateGraph[State, None, State, State]:
    graph: StateGraph[State, None, State, State] = StateGraph(State)
    for name, before in zip(names, (START, *names), strict=False):

        async def run(state: State, name: str = name) -> dict[str, Any]:
            ran.append(name)
            return {"log": {name: "done"}}

        graph.add_node(name, run)
        graph.add_edge(before, name)
    graph.add_edge(names[-1], END)
    return graph


def compiled(graph: StateGraph[State, None, State, State], saver: CheckpointSaver) -> CompiledStateGraph[Any]:
    return graph.compile(checkpointer=saver)


def forged(type_: str, data: bytes, metadata: bytes = b"{}") -> CheckpointRow:
    return CheckpointRow("r1", "", "c1", None, type_, data, metadata)


async def put(saver: CheckpointSaver, source: Any = "loop", **values: Any) -> Any:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = values
    config: Any = {"configurable": {"thread_id": "r1", "checkpoint_ns": ""}}
    return await saver.aput(config, checkpoint, {"source": source, "step": 0 if source == "input" else 1}, {})


async def newest(saver: CheckpointSaver) -> CheckpointTuple:
    found = await saver.aget_tuple({"configurable": {"thread_id": "r1"}})
    assert found is not None
    return found


# -- what comes back


@given(values=st.dictionaries(TEXT, JSON, max_size=5), written=JSON)
def test_a_state_of_json_comes_back_as_it_was(values: dict[str, Any], written: Any) -> None:
    async def there_and_back() -> CheckpointTuple:
        saver = saver_on(CheckpointShelf())
        config = await put(saver, **{f"c{name}": value for name, value in values.items()})
        await saver.aput_writes(config, [("results", written)], "t1")
        return await newest(saver)

    found = asyncio.run(there_and_back())
    assert found.checkpoint["channel_values"] == {f"c{name}": value for name, value in values.items()}
    assert found.pending_writes == [("t1", "results", written)]


async def test_nul_and_lone_surrogates_survive_or_are_replaced() -> None:
    saver = saver_on(CheckpointShelf())
    await put(saver, text="a\x00b", half="\ud83d")
    values = (await newest(saver)).checkpoint["channel_values"]
    assert values["text"] == "a\x00b"
    assert values["half"] == "?"


async def test_langgraphs_own_types_come_back() -> None:
    saver = saver_on(CheckpointShelf())
    config = await put(saver)
    sent = [("__interrupt__", (Interrupt(value={"q": 1}, id="i1"),)), ("tasks", Send("a", {"x": 1}))]
    await saver.aput_writes(config, sent, "t1")
    pending = (await newest(saver)).pending_writes or []
    assert {channel: value for _, channel, value in pending} == {
        "__interrupt__": [Interrupt(value={"q": 1}, id="i1")],
        "tasks": Send("a", {"x": 1}),
    }


async def test_writes_come_in_the_order_in_which_a_graph_applies_them() -> None:
    saver = saver_on(CheckpointShelf())
    config = await put(saver)
    await saver.aput_writes(config, [("x", 1), ("y", 2)], "task-b", "path, 1")
    await saver.aput_writes(config, [("x", 3)], "task-a", "path, 2")
    pending = (await newest(saver)).pending_writes or []
    assert [value for _, _, value in pending] == [1, 2, 3]


async def test_a_task_that_writes_twice_keeps_its_first_values_and_its_last_error() -> None:
    saver = saver_on(CheckpointShelf())
    config = await put(saver)
    for number in (1, 2):
        await saver.aput_writes(config, [("x", number)], "t1")
        await saver.aput_writes(config, [("__error__", f"error {number}")], "t1")
    pending = (await newest(saver)).pending_writes or []
    assert {channel: value for _, channel, value in pending} == {"x": 1, "__error__": "error 2"}


# -- what is committed when


async def test_an_input_waits_for_the_next_commit() -> None:
    shelf = CheckpointShelf()
    saver = saver_on(shelf)
    config = await put(saver, "input")
    assert shelf.commits == 0
    await saver.aput_writes(config, [("x", 1)], "t1")
    assert shelf.commits == 1 and len(shelf.rows) == 1 and len(shelf.writes) == 1


async def test_a_new_thread_is_not_looked_for_once() -> None:
    shelf = CheckpointShelf()
    await put(saver_on(shelf))
    saver = CheckpointSaver(shelf, StoreWriter(shelf), is_new=True)
    assert await saver.aget_tuple({"configurable": {"thread_id": "r1"}}) is None
    assert await newest(saver)


async def test_a_read_sees_what_was_deferred() -> None:
    saver = saver_on(CheckpointShelf())
    await put(saver, "input", text="hello")
    assert (await newest(saver)).checkpoint["channel_values"] == {"text": "hello"}


async def test_a_refused_commit_loses_nothing_that_was_deferred() -> None:
    shelf = CheckpointShelf()
    saver = saver_on(shelf)
    config = await put(saver, "input")
    shelf.error = StoreError("the disk is away")
    with pytest.raises(StoreError):
        await saver.aput_writes(config, [("x", 1)], "t1")
    shelf.error = None
    assert (await newest(saver)).pending_writes == []


class LostWriter(StoreWriter):
    """Somebody else takes the run over after ``keeps`` commits."""

    def __init__(self, shelf: CheckpointShelf, keeps: int) -> None:
        super().__init__(shelf)
        self.left = keeps

    async def keep(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        self.left -= 1
        if self.left < 0:
            raise LeaseLost("taken over")
        await super().keep(checkpoints, writes)


@pytest.mark.parametrize("keeps", range(6))
async def test_a_lost_lease_stops_the_graph_before_the_next_node(keeps: int) -> None:
    # Commits: the writes and the state of each of three nodes; the first node's input is part of its writes'.
    shelf, ran = CheckpointShelf(), list[str]()
    graph = compiled(chain("a", "b", "c", ran=ran), CheckpointSaver(shelf, LostWriter(shelf, keeps)))
    with pytest.raises(LeaseLost):
        await graph.ainvoke({"log": {}}, {"configurable": {"thread_id": "r1"}}, durability="sync")
    states_of_nodes = keeps // 2
    assert ran == ["a", "b", "c"][: states_of_nodes + 1]


async def test_three_nodes_cost_one_commit_each_state_and_each_task() -> None:
    shelf, ran = CheckpointShelf(), list[str]()
    graph = compiled(chain("a", "b", "c", ran=ran), saver_on(shelf))
    await graph.ainvoke({"log": {}}, {"configurable": {"thread_id": "r1"}}, durability="sync")
    assert ran == ["a", "b", "c"]
    assert shelf.commits == 6


class HoldingWriter(StoreWriter):
    """Notes the nodes whose writes, and the checkpoints that, wait for the run's end."""

    def __init__(self, shelf: CheckpointShelf) -> None:
        super().__init__(shelf)
        self.held: list[str] = []

    async def hold(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        self.held += ["checkpoint"] * len(checkpoints)
        self.held += sorted({write.task_path.rpartition(", ")[2] for write in writes})
        await super().hold(checkpoints, writes)


async def held_by(graph: StateGraph[State, None, State, State]) -> list[str]:
    shelf = CheckpointShelf()
    writer = HoldingWriter(shelf)
    flow = compiled(graph, CheckpointSaver(shelf, writer))
    await flow.ainvoke({"log": {}}, {"configurable": {"thread_id": "r1"}}, durability="sync")
    return writer.held


async def test_only_what_nothing_follows_waits_for_the_run_s_end() -> None:
    assert await held_by(chain("a", "b", "c", ran=[])) == ["c", "checkpoint"]


async def test_a_loop_s_last_round_waits_for_the_run_s_end() -> None:
    ran = list[str]()
    graph = chain("a", "b", ran=ran)
    graph.edges.discard(("b", END))
    graph.add_conditional_edges("b", lambda state: "a" if len(ran) < 4 else END, ["a", END])
    assert await held_by(graph) == ["b", "checkpoint"]
    assert ran == ["a", "b", "a", "b"]


async def test_experts_that_meet_are_committed_and_what_they_meet_in_waits_for_the_run_s_end() -> None:
    graph = chain("a", ran=[])
    graph.edges.discard(("a", END))
    for expert in ("b", "c"):
        graph.add_node(expert, lambda state, name=expert: {"log": {name: "done"}})
        graph.add_edge("a", expert)
    graph.add_node("d", lambda state: {"log": {"d": "done"}})
    graph.add_edge(["b", "c"], "d")
    graph.add_edge("d", END)
    assert await held_by(graph) == ["d", "checkpoint"]


# -- what a forged row can do


def msgpack_ext(code: int, *parts: Any) -> bytes:
    return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(parts)))


@pytest.mark.parametrize("code", range(8))
async def test_a_row_that_names_a_function_calls_nothing(code: int, tmp_path: Any) -> None:
    trace = tmp_path / "called"
    command = f"touch {trace}"
    argument = {0: command, 3: command, 1: (command,)}.get(code, {"command": command})
    shelf = CheckpointShelf()
    saver = saver_on(shelf)
    config = await put(saver)
    data = msgpack_ext(code, "os", "system", argument, "__call__")
    place = config["configurable"]["checkpoint_id"]
    await shelf.keep((), [WriteRow("r1", "", place, "t1", 0, "x", "msgpack", data)])
    await newest(saver)
    assert not trace.exists()


async def test_a_foreign_type_comes_back_as_plain_data_and_is_not_imported(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_module.py").write_text("class Thing:\n    def __init__(self, *a): self.a = a\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    value = ormsgpack.Ext(0, ormsgpack.packb(("evil_module", "Thing", "data")))
    state = {**empty_checkpoint(), "channel_values": {"x": value}}
    shelf = CheckpointShelf()
    await shelf.keep([forged("msgpack", ormsgpack.packb(state))], ())
    assert (await newest(saver_on(shelf))).checkpoint["channel_values"] == {"x": "data"}
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("pickle", b"cos\nsystem\n(S'false'\ntR."),
        ("json", b'{"lc": 2, "type": "constructor", "id": ["os", "system"], "args": ["false"]}'),
        ("json", json.dumps(empty_checkpoint()).encode()),
        ("a type of tomorrow", b""),
        ("msgpack", b"\xc1 no msgpack"),
        ("msgpack", b"\x91" * 5000),
        ("msgpack", b""),
        ("msgpack", ormsgpack.packb([1, 2])),
        ("msgpack", ormsgpack.packb({"id": "c1"})),
        ("null", b""),
    ],
)
async def test_an_unreadable_row_is_one_error_that_no_retry_mends(type_: str, data: bytes) -> None:
    shelf = CheckpointShelf()
    await shelf.keep([forged(type_, data)], ())
    with pytest.raises(StoreError, match="a checkpoint of run r1 cannot be read") as caught:
        await newest(saver_on(shelf))
    assert not caught.value.retryable
    assert caught.value.context["checkpoint_id"] == "c1"


@pytest.mark.parametrize("metadata", [b"", b"\xff", b"[]", b"{"])
async def test_unreadable_metadata_is_the_same_error(metadata: bytes) -> None:
    shelf = CheckpointShelf()
    state = ormsgpack.packb(dict(empty_checkpoint()))
    await shelf.keep([forged("msgpack", state, metadata)], ())
    with pytest.raises(StoreError, match="metadata"):
        await newest(saver_on(shelf))


def test_reading_is_strict_whatever_the_environment_says() -> None:
    code = (
        "from actors.running.checkpoint_codec import strict_serializer as s\n"
        "import ormsgpack, sys\n"
        "data = ormsgpack.packb(ormsgpack.Ext(0, ormsgpack.packb(('this', 'd', 'plain'))))\n"
        "assert s().loads_typed(('msgpack', data)) == 'plain'\n"
        "assert 'this' not in sys.modules\n"
    )
    for strict in ("true", "false"):
        environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": strict}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


def test_the_serializer_refuses_what_it_would_have_to_pickle() -> None:
    with pytest.raises(TypeError):
        strict_serializer().dumps_typed({"call": object()})


async def test_a_graph_that_wants_types_allowed_gets_none() -> None:
    saver = saver_on(CheckpointShelf())
    assert saver.with_allowlist([("os", "system")]) is saver
    assert isinstance(saver.serde, JsonPlusSerializer)


# -- whole threads


async def test_a_filter_is_compared_and_never_a_query() -> None:
    saver = saver_on(CheckpointShelf())
    await put(saver)
    filters: list[dict[str, Any]] = [{"x'; DROP TABLE checkpoints; --": 1}, {"step": "1"}, {"step": 1}]
    found = [[item async for item in saver.alist(None, filter=one)] for one in filters]
    assert [len(items) for items in found] == [0, 0, 1]


async def test_a_list_of_one_named_checkpoint_has_that_one() -> None:
    saver = saver_on(CheckpointShelf())
    first = await put(saver)
    await put(saver)
    assert [item.config async for item in saver.alist(first)] == [first]


async def test_pruning_knows_two_strategies() -> None:
    saver = saver_on(CheckpointShelf())
    with pytest.raises(ValidationError, match="keep_latest or delete"):
        await saver.aprune(["r1"], strategy="keep_nothing")


async def test_blocking_calls_say_which_coroutine_to_use() -> None:
    saver = saver_on(CheckpointShelf())
    config = config_of("r1", "", "c1")
    for call, name in (
        (lambda: saver.get_tuple(config), "aget_tuple"),
        (lambda: saver.list(config), "alist"),
        (lambda: saver.put(config, empty_checkpoint(), {}, {}), "aput"),
        (lambda: saver.put_writes(config, [], "t"), "aput_writes"),
        (lambda: saver.delete_thread("r1"), "adelete_thread"),
    ):
        with pytest.raises(NotImplementedError, match=name):
            call()


def test_a_codec_keeps_the_parent_and_the_path() -> None:
    codec = CheckpointCodec(strict_serializer())
    checkpoint = empty_checkpoint()
    row = codec.checkpoint_row(config_of("r1", "", "parent"), checkpoint, {"source": "loop", "step": 2})
    writes = codec.write_rows(config_of("r1", "", checkpoint["id"]), [("x", 1)], "t1", "path")
    found = codec.read(row, writes)
    assert found.config == config_of("r1", "", checkpoint["id"])
    assert found.parent_config == config_of("r1", "", "parent")
    assert found.metadata == {"source": "loop", "step": 2}
    assert writes[0].task_path == "path" and writes[0].idx == 0
