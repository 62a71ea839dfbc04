"""What decides whether an edge is taken or a loop ends: ``node.signal`` or ``not node.signal``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

_FORM = re.compile(r"^\s*(?P<negated>not\s+)?(?P<node>[a-z][a-z0-9_]*)\.(?P<signal>[a-z][a-z0-9_]*)\s*$")


@dataclass(frozen=True, slots=True)
class Condition:
    """A signal of a node's latest visit, or its absence."""

    node: str
    signal: str
    negated: bool = False

    def holds(self, signals: Mapping[str, Collection[str]]) -> bool:
        """Whether it holds for the signals by node id; a node that has not run has none."""
        return (self.signal in signals.get(self.node, ())) != self.negated

    def __str__(self) -> str:
        return f"{'not ' if self.negated else ''}{self.node}.{self.signal}"


def parse_condition(text: str) -> Condition:
    """Read a condition; raises ValueError naming the text and the form that is allowed."""
    found = _FORM.match(text)
    if not found:
        raise ValueError(f"condition {text!r} must be 'node.signal' or 'not node.signal'")
    return Condition(found["node"], found["signal"], bool(found["negated"]))
