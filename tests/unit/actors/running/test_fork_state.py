"""Forks of real flows: they go on where they were told to, with what they were told."""

from __future__ import annotations

from typing import Any

import pytest

from actors.running.checkpoint_codec import CheckpointCodec, strict_serializer
from registries.contracts.errors import NotFound, ValidationError
from registries.contracts.runs import RunResult
from tests.unit.actors.running.forking import FLOWS, Lab, lettered


def told(result: RunResult) -> dict[str, Any]:
    """What a fork without edits has in common with its source; parallel nodes end in any order."""
    return {
        "status": result.status,
        "answer": result.answer,
        "nodes": sorted((node.id, node.visit, node.status, node.text) for node in result.nodes),
        "rounds": result.rounds,
    }


@pytest.mark.parametrize("name", FLOWS)
async def test_a_fork_of_any_checkpoint_runs_the_rest_and_nothing_else(name: str) -> None:
    lab = Lab(name)
    whole = await lab.finish("r1")
    assert whole.status == "completed"
    whole_path = sorted(lab.path)
    checkpoints = (await lab.document())["checkpoints"]
    assert len(checkpoints) > len(lab.flow.nodes) / 2
    for fact in checkpoints:
        fork = await lab.fork(fact["checkpoint_id"])
        state = (await lab.document(fork))["state"]
        done = sorted(result["id"] for result in state["results"])
        result = await lab.finish(fork)
        assert told(result) == told(whole)
        assert result.run_id == fork
        assert sorted([*done, *_ended(lab.path)]) == _ended(whole_path)


def _ended(path: list[str]) -> list[str]:
    """A node that asked and was answered started twice and ended once."""
    return sorted(
        [*(name for name in path if name != "approver"), *(["approver"] if "approver" in path else [])]
    )


@pytest.mark.parametrize("name", FLOWS)
async def test_a_fork_is_the_new_runs_own(name: str) -> None:
    lab = Lab(name)
    await lab.finish("r1")
    for fact in (await lab.document())["checkpoints"]:
        fork = await lab.fork(fact["checkpoint_id"])
        state = (await lab.document(fork))["state"]
        assert state["run_id"] == fork
        assert state["request_id"] == f"req-{fork}"
        assert state["memory"]["metadata"]["user"] == f"user of {fork}"
    assert (await lab.document())["state"]["run_id"] == "r1"


async def test_what_the_source_did_is_there_but_not_paid_again() -> None:
    lab = Lab("challenge")
    whole = await lab.finish("r1")
    assert whole.usage.prompt_tokens > 0
    fork = await lab.fork((await lab.document())["checkpoints"][0]["checkpoint_id"])
    result = await lab.finish(fork)
    assert [node.text for node in result.nodes] == [node.text for node in whole.nodes]
    assert result.usage.prompt_tokens == 0
    assert {node.data["inherited_from"] for node in result.nodes} == {"r1"}


async def test_calls_of_a_fork_have_ids_of_their_own() -> None:
    lab = Lab("challenge")
    await lab.finish("r1")
    fork = await lab.fork(await lab.checkpoint_before("challenger"))
    await lab.finish(fork)
    ids = [request.request_id for request in lab.world.generator.requests]
    assert ids[0] == f"{fork}:challenger:1"


async def test_the_checkpoint_keeps_its_id_and_edited_channels_get_the_highest_version() -> None:
    lab = Lab("challenge")
    await lab.finish("r1")
    at = await lab.checkpoint_before("challenger")
    fork = await lab.fork(at, outputs={"creator": "85"})
    [(row, _)] = await lab.store.checkpoints(fork)
    assert (row.checkpoint_id, row.parent_id) == (at, None)
    versions = CheckpointCodec(strict_serializer()).read_checkpoint(row)["channel_versions"]
    highest = {name for name, version in versions.items() if version == max(versions.values())}
    assert highest == {"run_id", "request_id", "memory", "outputs", "results"}


async def test_the_source_stays_as_it_was() -> None:
    lab = Lab("challenge")
    await lab.finish("r1")
    before = await lab.document()
    fork = await lab.fork(await lab.checkpoint_before("challenger"), outputs={"creator": "48 + 37 = 85"})
    await lab.finish(fork)
    assert await lab.document() == before


async def test_another_question_is_answered_from_the_start() -> None:
    lab = Lab("challenge", answer=lambda asked: f"I was asked: {asked.prompt}")
    await lab.finish("r1")
    first = (await lab.document())["checkpoints"][-1]["checkpoint_id"]
    fork = await lab.fork(first, input={"prompt": "Who wrote Faust?"})
    await lab.finish(fork)
    assert lab.world.generator.prompts()[0] == "Who wrote Faust?"


async def test_an_edited_output_is_what_later_nodes_read() -> None:
    lab = Lab("multi_perspective", prompt="Design a login")
    await lab.finish("r1")
    fork = await lab.fork(
        await lab.checkpoint_before("synthesizer"), outputs={"security": "Use passkeys only."}
    )
    result = await lab.finish(fork)
    assert lab.path == ["synthesizer"]
    assert "Use passkeys only." in lab.world.generator.prompts()[0]
    assert next(node for node in result.nodes if node.id == "security").text == "Use passkeys only."


async def test_a_right_answer_put_in_ends_the_challenge() -> None:
    lab = Lab("challenge")
    await lab.finish("r1")
    assert lab.path[:3] == ["creator", "challenger", "refiner"]
    at = await lab.checkpoint_before("challenger")
    fork = await lab.fork(at, outputs={"creator": "Answer: 48 + 37 = 85"})
    result = await lab.finish(fork)
    assert lab.path == ["challenger"]
    assert result.answer == "Answer: 48 + 37 = 85"


# -- edits that lead elsewhere


async def test_a_signal_taken_back_ends_a_loop() -> None:
    lab = Lab("challenge")
    await lab.finish("r1")
    assert lab.path[:3] == ["creator", "challenger", "refiner"]
    fork = await lab.fork(await lab.checkpoint_before("refiner"), signals={"challenger": ["no_fault"]})
    assert (await lab.document(fork))["next"] == []
    result = await lab.finish(fork)
    assert lab.path == [] and result.status == "completed"
    assert result.answer == "48 + 37 = 84"


async def test_a_signal_put_in_goes_round_once_more() -> None:
    lab = Lab("challenge")
    await lab.finish("r1")
    newest = (await lab.document())["checkpoints"][0]
    assert newest["next"] == []
    fork = await lab.fork(None, signals={"challenger": ["fault"]})
    assert (await lab.document(fork))["next"] == ["refiner"]
    await lab.finish(fork)
    assert lab.path[0] == "refiner"


async def test_more_rounds_go_on_after_the_end() -> None:
    lab = Lab("challenge", answer=lambda asked: "Wrong.")
    await lab.finish("r1")
    assert lab.path == ["creator", *["challenger", "refiner"] * 2]
    fork = await lab.fork(None, input={"rounds": 3})
    result = await lab.finish(fork)
    assert lab.path == ["challenger", "refiner"]
    assert result.rounds == 3


async def test_linear_tries_again_when_its_judgement_is_overruled() -> None:
    lab = Lab("linear")
    await lab.finish("r1")
    fork = await lab.fork(await lab.checkpoint_before("history"), signals={"validator": []})
    await lab.finish(fork)
    assert lab.path[:2] == ["execution", "validator"]


async def test_a_branch_that_is_opened_runs_before_what_waits_for_all() -> None:
    lab = lettered("abe", "a>e a>b?a.yes b>e")
    await lab.finish("r1")
    assert lab.path == ["a", "e"]
    at = await lab.checkpoint_before("e")
    fork = await lab.fork(at, signals={"a": ["yes"]})
    assert (await lab.document(fork))["next"] == ["b"]
    await lab.finish(fork)
    assert lab.path == ["b", "e"]
    fork = await lab.fork(at)
    await lab.finish(fork)
    assert lab.path == ["e"]


async def test_a_branch_that_is_closed_does_not_run() -> None:
    lab = lettered("abe", "a>e a>b?a.yes b>e", "a")
    await lab.finish("r1")
    assert lab.path == ["a", "b", "e"]
    fork = await lab.fork(await lab.checkpoint_before("b"), signals={"a": []})
    assert (await lab.document(fork))["next"] == ["e"]
    await lab.finish(fork)
    assert lab.path == ["e"]


async def test_what_waits_for_all_waits_for_a_branch_that_it_had_not_heard_of() -> None:
    lab = lettered("abce", "a>e a>c c>b?c.yes b>e")
    await lab.finish("r1")
    assert lab.path == ["a", "c", "e"]
    fork = await lab.fork(await lab.checkpoint_before("e"), signals={"c": ["yes"]})
    assert (await lab.document(fork))["next"] == ["b"]
    await lab.finish(fork)
    assert lab.path == ["b", "e"]


async def test_branches_of_one_step_are_all_routed_again() -> None:
    lab = lettered("abcde", "a>b a>c b>d?b.yes c>e?c.yes", "b", output={"answer": ["e", "d"]})
    await lab.finish("r1")
    assert sorted(lab.path) == ["a", "b", "c", "d"]
    fork = await lab.fork(await lab.checkpoint_before("d"), signals={"c": ["yes"]})
    await lab.finish(fork)
    assert sorted(lab.path) == ["d", "e"]


async def test_a_fork_can_be_forked() -> None:
    lab = Lab("challenge")
    await lab.finish("r1")
    first = await lab.fork(None, signals={"challenger": ["fault"]})
    await lab.finish(first)
    second = await lab.fork(None, source=first, signals={"challenger": ["fault"]})
    result = await lab.finish(second)
    assert result.status == "completed"


async def test_a_run_that_waits_is_forked_and_asks_again() -> None:
    lab = Lab("reviewed_challenge")
    waits = await lab.run("r1")
    assert waits.waiting is not None
    fork = await lab.fork(None, outputs={"refiner": "eighty-five"})
    result = await lab.run(fork)
    assert result.waiting is not None and result.waiting.text == "eighty-five"
    assert lab.started() == ["approver"]


# -- what is refused


async def test_an_unknown_checkpoint_or_run_is_not_found() -> None:
    lab = Lab("challenge")
    with pytest.raises(NotFound, match="no checkpoint yet"):
        await lab.fork(None)
    await lab.finish("r1")
    with pytest.raises(NotFound, match="'nothing'") as caught:
        await lab.fork("nothing")
    assert caught.value.param == "checkpoint_id"


@pytest.mark.parametrize(
    ("edits", "param", "says"),
    [
        ({"results": []}, "state.results", "input, outputs, memory, scores, signals"),
        ({"run_id": "r2"}, "state.run_id", "allowed"),
        ({"outputs": {"nobody": "x"}}, "state.outputs.nobody", "challenger, creator, refiner"),
        ({"outputs": {"creator": 85}}, "state.outputs.creator", "string"),
        ({"outputs": "x"}, "state.outputs", "dictionary"),
        ({"scores": {"creator": "high"}}, "state.scores.creator", "number"),
        ({"scores": {"nobody": 1}}, "state.scores.nobody", "creator"),
        ({"signals": {"creator": "fault"}}, "state.signals.creator", "list"),
        ({"signals": {"nobody": []}}, "state.signals.nobody", "creator"),
        ({"memory": {"metadata": {"tenant": "other"}}}, "state.memory.metadata", "not permitted"),
        ({"memory": {"history": [{"role": "user"}]}}, "state.memory.history.0.content", "required"),
        ({"input": {"prompt": " "}}, "input.prompt", "required"),
        ({"input": {"rounds": 0}}, "input.rounds", "from 1"),
        ({"input": {"wild": 1}}, "input.wild", "allowed"),
    ],
)
async def test_edits_outside_what_is_allowed_are_refused(
    edits: dict[str, Any], param: str, says: str
) -> None:
    lab = Lab("challenge")
    await lab.finish("r1")
    with pytest.raises(ValidationError, match=says) as caught:
        await lab.fork(None, **edits)
    assert caught.value.param == param


async def test_a_node_that_has_not_answered_yet_has_no_output_to_edit() -> None:
    lab = Lab("challenge")
    await lab.finish("r1")
    at = await lab.checkpoint_before("refiner")
    with pytest.raises(
        ValidationError, match="has answered at this checkpoint; allowed: challenger, creator"
    ):
        await lab.fork(at, outputs={"refiner": "85"})


async def test_objects_are_merged_by_key_and_memory_too() -> None:
    lab = Lab("linear", metadata={"k": "v"})
    await lab.finish("r1")
    before = (await lab.document())["state"]
    fork = await lab.fork(
        await lab.checkpoint_before("summary"),
        memory={"task_type": "code", "requirements": {"history": True}},
        scores={"validator": 0.25},
    )
    state = (await lab.document(fork))["state"]
    assert state["memory"]["task_type"] == "code"
    assert state["memory"]["requirements"] == {**before["memory"]["requirements"], "history": True}
    assert state["memory"]["metadata"]["flow"] == "linear"
    assert state["scores"]["validator"] == 0.25
    assert state["outputs"] == {name: text for name, text in before["outputs"].items() if name != "summary"}
