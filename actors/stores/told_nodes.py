"""What a run's committed events tell of its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pydantic

from registries.contracts.runs import NodeResult


def told_nodes(ends: Iterable[Mapping[str, Any]]) -> tuple[NodeResult, ...]:
    """The visits that ended, by their NODE_ENDS events' data in order; a repeated one with its last end."""
    nodes: dict[tuple[str, int], NodeResult] = {}
    for data in ends:
        try:
            ended = NodeResult.model_validate(data)
        except pydantic.ValidationError:
            # Written by another version of this program; the log has it as it is.
            continue
        nodes[ended.id, ended.visit] = ended
    return tuple(nodes.values())
