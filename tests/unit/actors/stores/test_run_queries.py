from __future__ import annotations

import pytest

from actors.stores.records import QueueState, RunFilter
from actors.stores.run_queries import (
    LISTED_CHARS,
    TAILED_AT_ONCE,
    add_feedback,
    events_after,
    get_run,
    history,
    list_runs,
    queue_state,
    tail_events,
)
from registries.contracts.errors import NotFound
from registries.contracts.runs import Feedback
from tests.unit.actors.stores.plain_transaction import PlainTransaction, put_events, put_run

RESULT = {
    "answer": "a" * 500,
    "nodes": [{"id": "n"}],
    "usage": {"prompt_tokens": 3},
    "error": None,
    "rounds": 1,
}


@pytest.fixture
def tx() -> PlainTransaction:
    return PlainTransaction()


def test_a_run_is_shown_whole_to_its_tenant_only(tx: PlainTransaction) -> None:
    put_run(
        tx, "r1", result=RESULT, waiting='{"node": "n"}', cancel_requested=1, lease_owner="o", parent="r0"
    )
    add_feedback(tx, "r1", "default", "eve", Feedback(rating=0.5, comment="fine"))
    run = get_run(tx, "r1", "default")
    assert run == {
        "run_id": "r1", "status": "completed", "flow": "f", "flow_version": "v1", "priority": 0,
        "user": "admin", "request_id": "req-r1", "conversation_id": None, "parent": "r0", "attempts": 0,
        "deaths": 0, "owner": "o", "created_at": 100.0, "started_at": None, "finished_at": None,
        "deadline_at": 200.0, "cancel_requested": True, "last_seq": 0,
        "request": {"prompt": "question r1", "flow_type": "f"}, "result": RESULT, "waiting": {"node": "n"},
        "feedback": [{"user": "eve", "rating": 0.5, "comment": "fine", "created_at": 1000.0}],
    }  # fmt: skip
    assert get_run(tx, "r1", "other") is None
    assert get_run(tx, "r2", "default") is None


def test_a_list_is_short_and_newest_first(tx: PlainTransaction) -> None:
    asked = {"prompt": "q" * 500, "flow_type": "f", "input": {"huge": 1}}
    put_run(tx, "r1", request=asked, result=RESULT)
    put_run(tx, "r2", status="queued")
    put_run(tx, "r3", tenant="other")
    newest, oldest = list_runs(tx, "default", RunFilter())
    assert (newest["run_id"], newest["answer"], newest["usage"], newest["result"]) == ("r2", "", None, None)
    assert oldest["prompt"] == "q" * LISTED_CHARS and oldest["answer"] == "a" * LISTED_CHARS
    assert oldest["usage"] == {"prompt_tokens": 3} and oldest["error"] is None
    assert oldest["request"] == {"flow_type": "f"} and "nodes" not in oldest["result"]
    assert "feedback" not in oldest


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"prompt": "", "input": {"prompt": "q" * 500}}, "q" * LISTED_CHARS),
        ({"input": {"prompt": "why?"}}, "why?"),
        ({"prompt": "how?", "input": {"prompt": "why?"}}, "how?"),
        ({"prompt": "", "input": {"prompt": ["no text"]}}, ""),
        ({"prompt": "", "input": {"topic": "rain"}}, ""),
        ({"prompt": "", "input": None}, ""),
    ],
)
def test_a_list_shows_the_question_wherever_it_was_given(
    tx: PlainTransaction, asked: dict[str, object], shown: str
) -> None:
    put_run(tx, "r1", request={"flow_type": "f", **asked})
    (row,) = list_runs(tx, "default", RunFilter())
    assert row["prompt"] == shown and row["request"] == {"flow_type": "f"}


def test_history_has_a_question_that_was_given_as_input(tx: PlainTransaction) -> None:
    asked = {"prompt": "", "flow_type": "f", "input": {"prompt": "why?"}}
    put_run(tx, "r1", request=asked, conversation_id="c", answer="85")
    assert [(t.role, t.content) for t in history(tx, "c", "default", 5)] == [
        ("user", "why?"), ("assistant", "85"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        (RunFilter(statuses=("failed", "queued")), ["r4", "r2"]),
        (RunFilter(flow="g"), ["r3"]),
        (RunFilter(user="eve"), ["r3", "r1"]),
        (RunFilter(conversation_id="c"), ["r2"]),
        (RunFilter(parent="r1"), ["r4"]),
        (RunFilter(created_after=20.0, created_before=40.0), ["r3", "r2"]),
        (RunFilter(before="r3"), ["r2", "r1"]),
        (RunFilter(before="r4", limit=2), ["r3", "r2"]),
        (RunFilter(statuses=("completed",), user="eve", flow="g"), ["r3"]),
        (RunFilter(flow="' OR 1=1 --"), []),
    ],
)
def test_filters_narrow_the_list(tx: PlainTransaction, filter: RunFilter, found: list[str]) -> None:
    put_run(tx, "r1", user_name="eve", created_at=10.0)
    put_run(tx, "r2", status="queued", conversation_id="c", created_at=20.0)
    put_run(tx, "r3", flow="g", user_name="eve", created_at=30.0)
    put_run(tx, "r4", status="failed", parent="r1", created_at=40.0)
    assert [run["run_id"] for run in list_runs(tx, "default", filter)] == found


def test_events_go_on_after_a_number(tx: PlainTransaction) -> None:
    put_run(tx, "r1")
    put_events(tx, "r1", 1, 2, 3, 4)
    assert [e.seq for e in events_after(tx, "r1", "default", 1, 2)] == [2, 3]
    assert events_after(tx, "r1", "default", 3, 9)[0].data == {"k": 4}
    assert events_after(tx, "r1", "other", 0, 9) == []


def test_one_tail_serves_many_runs(tx: PlainTransaction) -> None:
    for run_id in ("r1", "r2", "r3"):
        put_run(tx, run_id)
        put_events(tx, run_id, 1, 2, 3)
    seen = {"r2": 1, "nobody": 0, "r1": 2, "r3": 3}
    assert [(e.run_id, e.seq) for e in tail_events(tx, seen)] == [("r1", 3), ("r2", 2), ("r2", 3)]
    assert tail_events(tx, {}) == []


def test_more_runs_than_one_query_takes_are_tailed_too(tx: PlainTransaction) -> None:
    put_run(tx, "last")
    put_events(tx, "last", 1)
    seen = {f"r{number}": 0 for number in range(TAILED_AT_ONCE)} | {"last": 0}
    assert [e.run_id for e in tail_events(tx, seen)] == ["last"]


def test_the_tail_probes_the_key_and_scans_nothing(tx: PlainTransaction) -> None:
    plans: list[str] = []

    class Explained:
        def execute(self, sql: str, parameters: object = ()) -> object:
            cursor = tx.connection.execute(f"EXPLAIN QUERY PLAN {sql}", list(parameters))  # type: ignore[call-overload]
            plans.extend(row[3] for row in cursor.fetchall())
            return tx.connection.execute("SELECT 1 WHERE 0")

        def executemany(self, sql: str, rows: object) -> None: ...

    tail_events(Explained(), {"r1": 0, "r2": 0})  # type: ignore[arg-type]
    assert any("SEARCH e USING PRIMARY KEY (run_id=? AND seq>?)" in plan for plan in plans)
    assert not any(plan.startswith("SCAN e") for plan in plans)


def test_the_queue_counts_open_runs(tx: PlainTransaction) -> None:
    assert queue_state(tx) == QueueState()
    for number, status in enumerate(("queued", "queued", "running", "waiting", "completed", "failed")):
        put_run(tx, f"r{number}", status=status, queued_at=900.0 + number, tenant=f"t{number}")
    assert queue_state(tx) == QueueState(queued=2, running=1, waiting=1, oldest_queued_s=100.0)


def test_the_age_of_a_queue_is_never_negative(tx: PlainTransaction) -> None:
    put_run(tx, "r1", status="queued", queued_at=5000.0)
    assert queue_state(tx).oldest_queued_s == 0.0


def test_history_is_the_end_of_the_conversation(tx: PlainTransaction) -> None:
    for number in range(1, 5):
        status = "failed" if number == 2 else "completed"
        put_run(
            tx,
            f"r{number}",
            conversation_id="c",
            created_at=float(number),
            answer=f"a{number}",
            status=status,
        )
    turns = history(tx, "c", "default", 3)
    assert [(t.role, t.content) for t in turns] == [
        ("assistant", "a3"), ("user", "question r4"), ("assistant", "a4"),
    ]  # fmt: skip
    assert len(history(tx, "c", "default", 100)) == 6
    assert history(tx, "c", "default", 0) == [] == history(tx, "c", "other", 5)


def test_a_later_rating_of_a_user_replaces_the_first(tx: PlainTransaction) -> None:
    put_run(tx, "r1")
    add_feedback(tx, "r1", "default", "eve", Feedback(rating=0.1, comment="bad"))
    tx.now = 2000.0
    add_feedback(tx, "r1", "default", "eve", Feedback(rating=0.9))
    add_feedback(tx, "r1", "default", "ann", Feedback(rating=1.0))
    run = get_run(tx, "r1", "default")
    assert run is not None
    assert [(f["user"], f["rating"], f["comment"]) for f in run["feedback"]] == [
        ("ann", 1.0, None), ("eve", 0.9, None),
    ]  # fmt: skip


def test_feedback_on_a_run_of_another_tenant_is_refused(tx: PlainTransaction) -> None:
    put_run(tx, "r1")
    for run_id, tenant in (("r1", "other"), ("r2", "default")):
        with pytest.raises(NotFound):
            add_feedback(tx, run_id, tenant, "eve", Feedback(rating=0.1))
