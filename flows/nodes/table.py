"""The table of node kinds. A new kind is one file beside this one and one line here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from flows.node_context import NodeContext, NodeOutcome
from flows.nodes.analyze import analyze
from flows.nodes.approve import APPROVED, EDITED, REJECTED, approve
from flows.nodes.critique import critique
from flows.nodes.generate import generate
from flows.nodes.history import history
from flows.nodes.monitor import monitor
from flows.nodes.summarise import summarise
from flows.nodes.synthesize import synthesize
from flows.nodes.validate import validate
from registries.contracts.errors import Conflict
from registries.contracts.generation import MAX_TOKENS_CEILING

NodeFunction = Callable[[NodeContext], Awaitable[NodeOutcome]]
Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class NodeKind:
    """A kind and what flows may do with it.

    ``needs_prompt``: it asks a model, so it has a role that a request can give another model, and it may
    run elsewhere (``placement: task``). ``signals`` are raised by the kind itself, beside its prompt's;
    ``provides`` are prompt inputs that only this kind fills in; ``numbers`` are its numeric parameters
    with their bounds.
    """

    name: str
    run: NodeFunction
    needs_prompt: bool = False
    signals: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    numbers: Mapping[str, Bounds] = field(default_factory=dict)


_MAX_TOKENS: dict[str, Bounds] = {"max_tokens": (1, MAX_TOKENS_CEILING)}

NODE_KINDS: dict[str, NodeKind] = {
    kind.name: kind
    for kind in (
        NodeKind("analyze", analyze),
        NodeKind("approve", approve, signals=frozenset({APPROVED, EDITED, REJECTED})),
        NodeKind("critique", critique, needs_prompt=True, numbers=_MAX_TOKENS),
        NodeKind(
            "generate", generate, needs_prompt=True, numbers={**_MAX_TOKENS, "retry_temperature": (0, 2)}
        ),
        NodeKind("history", history, signals=frozenset({"relevant"}), numbers={"limit": (1, 1000)}),
        NodeKind("monitor", monitor, signals=frozenset({"fits"})),
        NodeKind("summarise", summarise),
        NodeKind(
            "synthesize",
            synthesize,
            needs_prompt=True,
            signals=frozenset({"degraded"}),
            provides=frozenset({"answers", "labelled_answers", "missing"}),
            numbers=_MAX_TOKENS,
        ),
        NodeKind("validate", validate, signals=frozenset({"accepted"}), numbers={"bar": (0, 1)}),
    )
}


def register_node(
    name: str,
    func: NodeFunction,
    *,
    needs_prompt: bool = False,
    signals: frozenset[str] = frozenset(),
    provides: frozenset[str] = frozenset(),
    numbers: Mapping[str, Bounds] | None = None,
) -> None:
    """Add a kind of one's own; raises Conflict for a name that is taken.

    Every process that runs flows must do it (a Ray worker imports the module that calls this).
    """
    if name in NODE_KINDS:
        raise Conflict(f"node kind {name!r} is registered twice", name)
    NODE_KINDS[name] = NodeKind(name, func, needs_prompt, signals, provides, numbers or {})
