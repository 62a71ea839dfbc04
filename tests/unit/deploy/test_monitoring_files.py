"""Alert rules and dashboard ask for metrics and labels that the runtime has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.telemetry.families import FAMILIES

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
RULES: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "parley.json").read_text())
QUERIES = {rule["alert"]: rule["expr"] for rule in RULES} | {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
WORDS = frozenset(["sum", "max", "by", "and", "rate", "increase", "deriv", "histogram_quantile"])
OF_PROMETHEUS = frozenset(("up", "job", "le"))
_QUOTED = re.compile(r'"[^"]*"')
_RANGES = re.compile(r"\[[^]]*\]")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_names_what_there_is(query: str) -> None:
    names = set(_NAME.findall(_RANGES.sub("", _QUOTED.sub("", query)))) - WORDS
    metrics = {name: family for name in names if (family := FAMILIES.get(name.removesuffix("_bucket")))}
    assert metrics or names == {"up", "job"}, "it asks for nothing of ours"
    labels = {label for family in metrics.values() for label in family.labels}
    assert names - metrics.keys() - labels <= OF_PROMETHEUS
    for name, family in metrics.items():
        assert name.endswith("_bucket") == (family.kind == "histogram"), name
        if family.kind == "counter":
            assert re.search(rf"(rate|increase)\({name}\b", query), f"{name} only ever rises"


def test_every_rule_says_who_is_called_and_why() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"]


def test_operators_are_told_of_every_rule() -> None:
    page = (DEPLOY.parent / "docs" / "operations.md").read_text()
    assert [rule["alert"] for rule in RULES if f"`{rule['alert']}`" not in page] == []


def test_the_rules_are_loaded_and_the_dashboard_can_be_imported() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert prometheus["rule_files"] == ["alerts.yml"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]}
    assert len(places) == len(DASHBOARD["panels"])
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "flow"}
