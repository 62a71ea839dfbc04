"""The flows that a catalog holds, as people and programs look for them."""

from __future__ import annotations

from typing import Any

from flows.roles import model_roles, role_of
from registries.catalog import Catalog
from registries.specs import FlowSpec


def list_available_flows(catalog: Catalog) -> list[dict[str, Any]]:
    """One JSON object a flow, by name."""
    return [describe_flow(flow) for flow in sorted(catalog.flows, key=lambda flow: flow.name)]


def describe_flow(flow: FlowSpec) -> dict[str, Any]:
    """Name, version, description, inputs, roles that can be given a model, nodes and rounds."""
    return {
        "name": flow.name,
        "version": flow.version,
        "description": flow.description,
        "input": list(flow.input),
        "roles": model_roles(flow),
        "nodes": [
            {"id": node.id, "kind": node.kind, "role": role_of(node), "model": node.model}
            for node in flow.nodes
        ],
        "rounds": max((loop.rounds for loop in flow.loops), default=0),
    }
