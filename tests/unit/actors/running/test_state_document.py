"""What is shown of a run's state."""

from __future__ import annotations

import json

import pytest

from registries.contracts.errors import ProviderError
from registries.contracts.generation import GenerationRequest
from tests.unit.actors.running.forking import FLOWS, Lab
from tests.unit.flows.fakes import Answer


@pytest.mark.parametrize("name", FLOWS)
async def test_checkpoints_lead_from_the_start_to_the_end(name: str) -> None:
    lab = Lab(name)
    await lab.finish("r1")
    document = await lab.document()
    json.dumps(document)
    facts = document["checkpoints"]
    assert facts[0]["next"] == [] and document["next"] == []
    assert [fact["step"] for fact in facts] == list(range(len(facts) - 2, -2, -1))
    assert [fact["parent_id"] for fact in facts] == [fact["checkpoint_id"] for fact in facts[1:]] + [None]
    assert [fact["created_at"] for fact in facts] == sorted((f["created_at"] for f in facts), reverse=True)
    visits = [node for fact in facts[:-1] for node in fact["next"]]
    assert sorted(visits) == sorted(result["id"] for result in document["state"]["results"])


async def test_before_the_first_checkpoint_there_is_no_state() -> None:
    assert await Lab("challenge").document() == {"state": None, "next": [], "checkpoints": []}


async def test_a_run_that_waits_shows_the_node_that_asks() -> None:
    lab = Lab("reviewed_challenge")
    await lab.run("r1")
    document = await lab.document()
    assert document["next"] == ["approver"]
    assert sorted(document["state"]["outputs"]) == ["challenger", "creator", "refiner"]


async def test_a_step_that_was_cut_off_shows_what_is_left_of_it() -> None:
    lab = Lab("multi_perspective", prompt="Design a login")
    flow = lab.flow
    nodes = tuple(node.model_copy(update={"on_error": "fail", "placement": "inline"}) for node in flow.nodes)
    lab.flow = flow.model_copy(update={"nodes": nodes})
    lab.answer = _fails_for("ux")
    assert (await lab.run("r1")).status == "failed"
    document = await lab.document()
    assert "ux" in document["next"] and "synthesizer" not in document["next"]
    assert sorted(document["checkpoints"][0]["next"]) == ["performance", "security", "ux"]


async def test_stack_traces_are_never_shown() -> None:
    lab = Lab("multi_perspective", answer=_fails_for("ux"), prompt="Design a login")
    await lab.finish("r1")
    [error] = (await lab.document())["state"]["error_history"]
    assert error["node_name"] == "ux"
    assert "stack_trace" not in error


def _fails_for(node: str) -> Answer:
    def answer(asked: GenerationRequest) -> str | Exception:
        return ProviderError("it is away") if asked.metadata["node"] == node else "fine"

    return answer
