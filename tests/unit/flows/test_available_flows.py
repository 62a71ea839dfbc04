"""Flows are described so that people and programs can choose one."""

from __future__ import annotations

from flows.available_flows import describe_flow, list_available_flows
from tests.unit.flows.fakes import PACKAGE


def test_flows_are_listed_by_name() -> None:
    assert [flow["name"] for flow in list_available_flows(PACKAGE)] == PACKAGE.flows.names()


def test_a_description_has_roles_inputs_and_rounds() -> None:
    flow = PACKAGE.flows.get("challenge")
    described = describe_flow(flow)
    assert described["version"] == flow.version
    assert described["roles"] == ["creator", "challenger", "refiner"]
    assert described["input"] == ["prompt", "rounds?"]
    assert described["rounds"] == 2
    assert described["nodes"][1] == {
        "id": "challenger",
        "kind": "critique",
        "role": "challenger",
        "model": "tier:strong",
    }
    assert describe_flow(PACKAGE.flows.get("linear"))["roles"] == ["executor"]
