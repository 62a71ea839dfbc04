"""A run waits for a human, and goes on as the human decides."""

from __future__ import annotations

from typing import Any

import pytest

from flows.builder import FlowGraphs
from flows.execution import execute_flow
from flows.validation import validate_flow
from registries.contracts.errors import LeaseLost
from registries.contracts.generation import GenerationRequest
from registries.contracts.runs import Decision
from registries.specs import FlowSpec
from tests.passing_time import skip_time
from tests.unit.flows.attempts import FailingSaver, Run, answer, told
from tests.unit.flows.fakes import PACKAGE, QUESTION, World, arithmetic, catalog_with, flow_of, order

REVIEWED = PACKAGE.flows.get("reviewed_challenge")


def ask(name: str = "ask", **values: Any) -> dict[str, Any]:
    return {"id": name, "kind": "approve", "prompt": None, "model": None, **values}


def edge(source: str, target: str, condition: str | None = None) -> dict[str, Any]:
    return {"source": source, "target": target, "condition": condition}


def run_of(flow: FlowSpec, **request: Any) -> Run:
    return Run(flow, FailingSaver(), FlowGraphs(catalog_with(flow)), answer=lambda request: "8", **request)


def plain(**values: Any) -> FlowSpec:
    """one → ask → two, with whatever is given instead."""
    defaults = {
        "nodes": [{"id": "one"}, ask(), {"id": "two"}],
        "edges": [edge("one", "ask"), edge("ask", "two", "ask.approved")],
        "output": {"answer": ["two", "ask", "one"]},
    }
    return flow_of(**{**defaults, **values})


async def test_the_run_waits_with_the_text_and_the_question() -> None:
    run = Run(REVIEWED, FailingSaver())
    result = await run.attempt()
    assert result.status == "waiting"
    assert result.waiting is not None
    assert result.waiting.model_dump(exclude={"interrupt_id"}) == {
        "node": "approver",
        "text": "48 + 37 = 85",
        "question": "Is this the answer to give?",
        "actions": ("approve", "edit", "reject"),
    }
    assert result.waiting.interrupt_id
    assert (result.answer, result.error) == ("48 + 37 = 85", None)
    assert result.improvement.reason == "the run waits for a decision"
    assert [n.id for n in result.nodes] == ["creator", "challenger", "refiner", "challenger"]
    assert run.worlds[0].events.names()[-2:] == ["round.started approver", "node.started approver"]


async def test_an_approval_lets_the_text_pass() -> None:
    run = Run(REVIEWED, FailingSaver())
    result = await run.attempt(decision=answer(await run.attempt(), "approve", comment="fine"))
    assert (result.status, result.answer, result.waiting) == ("completed", "48 + 37 = 85", None)
    last = result.nodes[-1]
    assert (last.id, last.text) == ("approver", "48 + 37 = 85")
    assert last.data == {"decision": "approve", "comment": "fine", "signals": ["approved"]}
    assert [(n, attempt) for n, _, attempt in run.started()][-2:] == [("approver", 1), ("approver", 2)]
    assert run.worlds[1].generator.requests == []
    assert result.improvement.delta == 1.0


async def test_an_edit_is_the_answer() -> None:
    run = Run(REVIEWED, FailingSaver())
    result = await run.attempt(decision=answer(await run.attempt(), "edit", text="It is 85."))
    assert (result.status, result.answer) == ("completed", "It is 85.")
    assert result.nodes[-1].data["signals"] == ["approved", "edited"]


async def test_a_rejection_goes_back_with_its_comment() -> None:
    run = Run(REVIEWED, FailingSaver())
    again = await run.attempt(decision=answer(await run.attempt(), "reject", comment="Say it in words."))
    assert again.status == "waiting"
    assert [(n.id, n.visit, n.status) for n in again.nodes][-2:] == [
        ("approver", 1, "completed"),
        ("reviser", 1, "completed"),
    ]
    assert run.worlds[1].generator.prompts() == [
        f"Question: {QUESTION} Answer: 48 + 37 = 85 Critique: Say it in words. Fix it."
    ]
    done = await run.attempt(decision=answer(again, "approve"))
    assert (done.status, done.answer) == ("completed", "48 + 37 = 85")
    assert [n.data["decision"] for n in done.nodes if n.id == "approver"] == ["reject", "approve"]


async def test_the_last_rejection_ends_the_run() -> None:
    run = Run(REVIEWED, FailingSaver())
    result = await run.attempt()
    questions = set()
    for _ in range(3):
        assert result.waiting is not None
        questions.add(result.waiting.interrupt_id)
        result = await run.attempt(decision=answer(result, "reject"))
    result = await run.attempt(decision=answer(result, "reject", comment="Enough."))
    assert (result.status, len(questions)) == ("cancelled", 3)
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("cancelled", False)
    assert result.error.message == "rejected at node 'approver': Enough."
    assert run.worlds[-1].events.names() == [
        "round.started approver",
        "node.started approver",
        "node.failed approver",
    ]
    assert sum(n.id == "reviser" for n in result.nodes) == 3
    asked_again = await run.attempt()
    assert asked_again.waiting is not None
    assert (asked_again.status, asked_again.waiting.text) == ("waiting", "48 + 37 = 85")


async def test_every_reviser_sees_the_latest_text_and_comment() -> None:
    def reviser(request: GenerationRequest) -> str:
        found = request.metadata["node"] == "reviser"
        return f"revision {request.request_id[-1]}" if found else arithmetic(request)

    run = Run(REVIEWED, FailingSaver(), answer=reviser)
    first = await run.attempt()
    second = await run.attempt(decision=answer(first, "reject", comment="a"))
    third = await run.attempt(decision=answer(second, "reject", comment="b"))
    assert third.waiting is not None
    assert third.waiting.text == "revision 2"
    assert run.worlds[-1].generator.prompts() == [
        f"Question: {QUESTION} Answer: revision 1 Critique: b Fix it."
    ]


@pytest.mark.parametrize("stray", ["", "another", "0" * 32])
async def test_an_answer_to_another_question_is_ignored(stray: str) -> None:
    run = Run(REVIEWED, FailingSaver())
    first = await run.attempt()
    second = await run.attempt(decision=Decision(action="approve", interrupt_id=stray))
    third = await run.attempt()
    assert first.status == second.status == third.status == "waiting"
    assert first.waiting == second.waiting == third.waiting
    assert (await run.attempt(decision=answer(third, "approve"))).status == "completed"


async def test_an_answer_that_was_used_does_not_answer_the_next_question() -> None:
    run = Run(REVIEWED, FailingSaver())
    used = answer(await run.attempt(), "reject", comment="a")
    second = await run.attempt(decision=used)
    assert (await run.attempt(decision=used)).waiting == second.waiting


async def test_a_decision_outlives_the_crash_of_its_attempt() -> None:
    run = Run(REVIEWED, FailingSaver())
    decision = answer(await run.attempt(), "reject", comment="a")
    run.saver.keep = run.saver.results
    with pytest.raises(LeaseLost):
        await run.attempt(decision=decision)
    run.saver.heal()
    result = await run.attempt(decision=decision)
    assert result.status == "waiting"
    assert [(n.id, n.visit) for n in result.nodes][-2:] == [("approver", 1), ("reviser", 1)]


async def test_waiting_counts_neither_against_the_node_nor_the_deadline() -> None:
    flow = plain(nodes=[{"id": "one"}, ask(timeout_s=5), {"id": "two"}])
    run = run_of(flow, deadline_s=10)
    result = await run.attempt()
    skip_time(20)
    after = World(run.answer, run.graphs.catalog)
    after.clock.now += 20
    done = await run.attempt(after, answer(result, "approve"))
    assert (result.status, done.status) == ("waiting", "completed")
    assert [call.deadline_s for call in after.generator.requests] == [10]


@pytest.mark.parametrize(
    ("edges", "loops", "status", "path"),
    [
        ([edge("ask", "two")], [], "cancelled", ["one", "ask"]),
        ([edge("ask", "two", "ask.approved")], [], "cancelled", ["one", "ask"]),
        ([edge("ask", "two", "ask.edited")], [], "cancelled", ["one", "ask"]),
        ([], [], "cancelled", ["one", "ask"]),
        ([edge("ask", "two", "ask.rejected")], [], "completed", ["one", "ask", "two"]),
        ([edge("ask", "two", "not ask.approved")], [], "completed", ["one", "ask", "two"]),
        ([], [{"nodes": ["ask", "two"], "rounds": 1, "until": "ask.approved"}], "cancelled", ["one", "ask"]),
        (
            [],
            [{"nodes": ["ask", "two"], "rounds": 2, "until": "ask.approved"}],
            "waiting",
            ["one", "ask", "two"],
        ),
        ([], [{"nodes": ["ask", "two"], "rounds": 2}], "cancelled", ["one", "ask"]),
    ],
)
async def test_a_rejection_goes_on_only_where_the_flow_tells_it_from_an_approval(
    edges: list[Any], loops: list[Any], status: str, path: list[str]
) -> None:
    nodes = [{"id": "one"}, ask(), *([{"id": "two"}] if edges or loops else [])]
    run = run_of(
        plain(nodes=nodes, edges=[edge("one", "ask"), *edges], loops=loops, output={"answer": ["one"]})
    )
    result = await run.attempt(decision=answer(await run.attempt(), "reject"))
    assert (result.status, [n.id for n in result.nodes]) == (status, path)


async def test_without_a_param_the_latest_completed_predecessor_is_shown() -> None:
    flow = flow_of(
        nodes=[
            {"id": "one"},
            {"id": "two"},
            {"id": "three", "on_error": "continue"},
            ask("ask"),
        ],
        edges=[edge("one", "two"), edge("two", "three"), *(edge(n, "ask") for n in ("three", "two", "one"))],
    )

    def last_fails(request: GenerationRequest) -> Any:
        return ValueError("x") if request.metadata["node"] == "three" else request.metadata["node"]

    run = Run(flow, FailingSaver(), FlowGraphs(catalog_with(flow)), answer=last_fails)
    waiting = (await run.attempt()).waiting
    assert waiting is not None
    assert (waiting.text, waiting.question) == ("two", "")


async def test_without_a_store_a_flow_that_waits_is_refused() -> None:
    world = World()
    result = await execute_flow(order("reviewed_challenge"), REVIEWED, FlowGraphs(PACKAGE), world.ports())
    assert result.error is not None
    assert (result.status, result.error.param) == ("failed", "flow_type")
    assert "waits for a human" in result.error.message
    assert world.events.seen == []


async def test_two_questions_in_a_row_have_answers_of_their_own() -> None:
    flow = plain(
        nodes=[{"id": "one"}, ask(), ask("last")],
        edges=[edge("one", "ask"), edge("ask", "last")],
        output={"answer": ["last"]},
    )
    run = run_of(flow)
    first = await run.attempt()
    second = await run.attempt(decision=answer(first, "edit", text="9"))
    assert second.waiting is not None
    assert (second.waiting.node, second.waiting.text) == ("last", "9")
    assert (await run.attempt(decision=answer(first, "approve"))).waiting == second.waiting
    assert (await run.attempt(decision=answer(second, "approve"))).answer == "9"


async def test_the_same_decisions_lead_to_the_same_end_wherever_it_is_cut_off() -> None:
    expected, writes = await decided(FailingSaver())
    for at in range(1, writes + 1):
        assert (await decided(FailingSaver(at)))[0] == expected, f"write {at}"


async def decided(saver: FailingSaver) -> tuple[dict[str, Any], int]:
    """Reject, edit; an attempt that is cut off is made again with the decision it had."""
    run, given = Run(REVIEWED, saver), [{"action": "edit", "text": "It is 85."}, {"action": "reject"}]
    decision: Decision | None = None
    while True:
        try:
            result = await run.attempt(decision=decision)
        except LeaseLost:
            saver.heal()
            continue
        if result.waiting is None:
            return told(result), saver.made
        decision = answer(result, **given.pop())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nodes": [ask(), {"id": "two"}], "edges": [edge("ask", "two")]}, "follows no node"),
        ({"nodes": [{"id": "one"}, ask(on_error="continue")]}, "must not be passed over"),
        ({"nodes": [{"id": "one"}, ask(placement="task")]}, "runs inline"),
        ({"nodes": [{"id": "one"}, ask(params={"show": "nothing"})]}, "show is 'nothing'"),
        ({"nodes": [{"id": "one"}, ask(), {"id": "two"}], "edges": [edge("one", "ask")]}, "'two' may"),
        (
            {
                "nodes": [{"id": "one"}, ask(), {"id": "two"}],
                "edges": [edge("one", "ask"), edge("one", "two")],
            },
            "'two' may",
        ),
        (
            {
                "nodes": [{"id": "one"}, ask(), ask("other")],
                "edges": [edge("one", "ask"), edge("one", "other")],
            },
            "'other' may",
        ),
        (
            {
                "nodes": [{"id": "one", "prompt": "challenge", "kind": "critique"}, ask(), {"id": "two"}],
                "edges": [edge("one", "ask", "one.fault"), edge("one", "two", "one.no_fault")],
            },
            "'two' may",
        ),
    ],
)
def test_an_approval_that_cannot_work_is_refused(values: dict[str, Any], words: str) -> None:
    flow = flow_of(**{"edges": [edge("one", "ask")], "output": {"answer": ["ask"]}, **values})
    problems = validate_flow(flow, PACKAGE)
    assert any(words in problem.message for problem in problems), problems


@pytest.mark.parametrize(
    "edges",
    [
        [
            edge("one", "ask", "one.fault"),
            edge("one", "two", "not one.fault"),
            edge("ask", "three"),
            edge("two", "three"),
        ],
        [edge("one", "ask"), edge("ask", "two", "ask.approved"), edge("ask", "three", "ask.rejected")],
        [edge("one", "two"), edge("one", "three"), edge("two", "ask"), edge("three", "ask")],
    ],
)
def test_branches_of_which_one_is_taken_do_not_run_beside_it(edges: list[Any]) -> None:
    nodes = [{"id": "one", "prompt": "challenge", "kind": "critique"}, ask(), {"id": "two"}, {"id": "three"}]
    assert validate_flow(flow_of(nodes=nodes, edges=edges), PACKAGE) == []


def test_of_two_questions_only_one_may_be_asked() -> None:
    nodes = [{"id": "one"}, ask(), ask("again"), {"id": "two"}]
    edges = [
        edge("one", "ask"),
        edge("ask", "two", "ask.approved"),
        edge("ask", "again", "ask.rejected"),
    ]
    assert validate_flow(flow_of(nodes=nodes, edges=edges), PACKAGE) == []


def test_the_drawing_shows_where_a_rejection_leads() -> None:
    drawing = FlowGraphs(PACKAGE).mermaid(REVIEWED)
    assert 'approver -->|"not approver.approved"| reviser' in drawing
    assert 'approver -->|"approver.approved"| finish' in drawing
    assert 'reviser -->|"at most 4 rounds, until approver.approved"| approver' in drawing
