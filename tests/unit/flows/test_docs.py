"""What the pages on flows and registries show is loaded and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flows.builder import FlowGraphs
from flows.execution import execute_flow
from flows.nodes import NODE_KINDS
from flows.validation import check_flows
from registries.contracts.config import RuntimeConfig
from registries.loader import load_catalog
from registries.strict_yaml import parse_strict_yaml
from tests.unit.flows.fakes import World, order

DOCS = Path(__file__).resolve().parents[3] / "docs"
FILES = {"models": "models.yaml", "strategies": "strategies.yaml", "prompts": "prompts/shown.yaml"}


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


async def test_the_shown_entries_load_and_the_shown_flow_runs(tmp_path: Path) -> None:
    shown = {"flows/shown.yaml": blocks("flows.md", "yaml")[0]}
    for block in blocks("registries.md", "yaml"):
        (section,) = parse_strict_yaml(block)
        shown[FILES[section]] = block
    assert set(shown) == {*FILES.values(), "flows/shown.yaml"}
    for name, text in shown.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    catalog = load_catalog(RuntimeConfig(home="", catalog_dirs=(str(tmp_path),)))
    check_flows(catalog)
    flow = catalog.flows.get("second_opinion")
    world = World(catalog=catalog)
    result = await execute_flow(order("second_opinion"), flow, FlowGraphs(catalog), world.ports())
    assert (result.status, result.answer) == ("completed", "48 + 37 = 85")


async def test_the_shown_node_kind_can_be_registered() -> None:
    namespace: dict[str, Any] = {}
    try:
        exec(blocks("flows.md", "python")[0], namespace)
        assert NODE_KINDS["shout"].signals == {"loud"}
    finally:
        NODE_KINDS.pop("shout", None)


def test_every_kind_is_in_the_table_of_the_page() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (yes|no) \|", (DOCS / "flows.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name: asks == "yes" for name, asks in rows} == {
        k.name: k.needs_prompt for k in NODE_KINDS.values()
    }
