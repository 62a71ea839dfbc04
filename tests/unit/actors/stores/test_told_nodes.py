from __future__ import annotations

from actors.stores.told_nodes import told_nodes
from registries.contracts.runs import NodeResult


def end(node: str, visit: int = 1, **changes: object) -> dict[str, object]:
    values = {"id": node, "role": node, "visit": visit, "status": "completed", **changes}
    return NodeResult.model_validate(values).model_dump(mode="json")


def test_every_visit_once_with_its_last_end_in_the_order_of_the_first() -> None:
    told = told_nodes(
        [end("a", text="cut off"), end("b", status="skipped"), end("a", 2), end("a", text="again")]
    )
    assert [(node.id, node.visit, node.status, node.text) for node in told] == [
        ("a", 1, "completed", "again"),
        ("b", 1, "skipped", ""),
        ("a", 2, "completed", ""),
    ]


def test_what_another_version_wrote_is_left_out() -> None:
    assert [node.id for node in told_nodes([{"id": "x"}, end("a"), {"status": "new"}])] == ["a"]
