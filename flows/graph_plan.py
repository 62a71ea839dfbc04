"""Where a flow goes from each node: pure, so that loops and joins can be tested without a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from registries.condition import Condition, parse_condition
from registries.specs import FlowSpec


@dataclass(frozen=True, slots=True)
class Route:
    """An edge to ``target`` that is taken when its condition holds."""

    target: str
    condition: Condition | None


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """A loop with what follows it."""

    nodes: tuple[str, ...]
    rounds: int
    until: Condition | None
    exits: tuple[Route, ...]


class GraphPlan:
    """Entries, joins and next nodes of a valid flow.

    An edge from inside a loop to outside is taken when the loop ends, whichever node ends it. A join is a
    node that waits for all of several sources; where one of them may never run, the node is ``deferred``
    instead: it waits until nothing else is left to do.
    """

    def __init__(self, flow: FlowSpec) -> None:
        self.loops: dict[str, LoopPlan] = {}
        self._routes: dict[str, tuple[Route, ...]] = {}
        members = {name: at for at, loop in enumerate(flow.loops) for name in loop.nodes}
        outside: dict[str, list[Route]] = {node.id: [] for node in flow.nodes}
        exits: dict[int, list[Route]] = {at: [] for at in range(len(flow.loops))}
        for edge in flow.edges:
            route = Route(edge.target, parse_condition(edge.condition) if edge.condition else None)
            home = members.get(edge.source)
            if home is None:
                outside[edge.source].append(route)
            elif members.get(edge.target) != home:
                exits[home].append(route)
        for at, loop in enumerate(flow.loops):
            until = parse_condition(loop.until) if loop.until else None
            plan = LoopPlan(loop.nodes, loop.rounds, until, tuple(exits[at]))
            self.loops.update(dict.fromkeys(loop.nodes, plan))
        self._routes = {name: tuple(routes) for name, routes in outside.items()}
        self._ids = [node.id for node in flow.nodes]
        self.predecessors = self._find_predecessors()
        self.entries = tuple(name for name in self._ids if self._is_entry(name))
        self.joins, self.deferred = self._find_joins()

    def is_static(self, node_id: str) -> bool:
        """Whether what follows never depends on signals or rounds."""
        return node_id not in self.loops and all(route.condition is None for route in self._routes[node_id])

    def routes(self, node_id: str) -> tuple[Route, ...]:
        """Edges of a node outside loops."""
        return self._routes[node_id]

    def static_targets(self, node_id: str) -> tuple[str, ...]:
        """Targets of a static node; empty for a terminal one."""
        return tuple(dict.fromkeys(route.target for route in self._routes[node_id]))

    def all_targets(self, node_id: str) -> tuple[str, ...]:
        """Every node that may come next; the end is not among them."""
        loop = self.loops.get(node_id)
        if loop is None:
            return self.static_targets(node_id)
        at = loop.nodes.index(node_id)
        following = loop.nodes[at + 1] if at + 1 < len(loop.nodes) else loop.nodes[0]
        leaves = at + 1 == len(loop.nodes) or (loop.until is not None and loop.until.node == node_id)
        return tuple(dict.fromkeys([following, *(route.target for route in loop.exits if leaves)]))

    def next_nodes(
        self, node_id: str, signals: Mapping[str, Collection[str]], visits: int, rounds: int | None = None
    ) -> list[str]:
        """Nodes to run after visit number ``visits`` of this one; empty means the end of this branch.

        ``rounds`` overrides what the loop declares.
        """
        loop = self.loops.get(node_id)
        if loop is None:
            return _taken(self._routes[node_id], signals)
        if loop.until is not None and loop.until.node == node_id and loop.until.holds(signals):
            return _taken(loop.exits, signals)
        if node_id != loop.nodes[-1]:
            return [loop.nodes[loop.nodes.index(node_id) + 1]]
        if visits < (rounds or loop.rounds):
            return [loop.nodes[0]]
        return _taken(loop.exits, signals)

    def heeds(
        self,
        node_id: str,
        given: Mapping[str, Collection[str]],
        otherwise: Mapping[str, Collection[str]],
        visits: int,
        rounds: int | None = None,
    ) -> bool:
        """Whether the signals ``given`` lead somewhere, and elsewhere than ``otherwise`` would.

        In the last round of a loop only its exits count: nobody comes back to look again.
        """
        loop = self.loops.get(node_id)
        if loop is not None and visits < (rounds or loop.rounds):
            found = [self.next_nodes(node_id, signals, visits, rounds) for signals in (given, otherwise)]
        else:
            routes = loop.exits if loop is not None else self._routes[node_id]
            found = [_taken(routes, signals) for signals in (given, otherwise)]
        return bool(found[0]) and found[0] != found[1]

    def starts_round(self, node_id: str) -> bool:
        """Whether a visit of this node begins a round of a loop."""
        return node_id in self.loops and self.loops[node_id].nodes[0] == node_id

    def _find_predecessors(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {name: [] for name in self._ids}
        for name in self._ids:
            for target in self.all_targets(name):
                if not (self.starts_round(target) and self.loops[target] is self.loops.get(name)):
                    found[target].append(name)
        return {name: tuple(sources) for name, sources in found.items()}

    def _is_entry(self, name: str) -> bool:
        return not self.predecessors[name]

    def _find_joins(self) -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
        certain = self._certain_nodes()
        joins: dict[str, tuple[str, ...]] = {}
        deferred: set[str] = set()
        for name, sources in self.predecessors.items():
            if len(sources) < 2 or not self._comes_from_branches(name, sources):
                continue
            if all(source in certain and self.is_static(source) for source in sources):
                joins[name] = sources
            else:
                deferred.add(name)
        return joins, frozenset(deferred)

    def _comes_from_branches(self, name: str, sources: tuple[str, ...]) -> bool:
        """Sources of one and the same loop are never active together, so there is nothing to wait for."""
        homes = {id(self.loops[source]) if source in self.loops else source for source in sources}
        return len(homes) > 1

    def _certain_nodes(self) -> set[str]:
        """Nodes that run in every run, whatever the signals say."""
        certain: set[str] = set()
        grown = True
        while grown:
            grown = False
            for name in self._ids:
                sources = self.predecessors[name]
                sure = all(source in certain and self.is_static(source) for source in sources)
                if name not in certain and name not in self.loops and sure:
                    certain.add(name)
                    grown = True
        return certain


def _taken(routes: tuple[Route, ...], signals: Mapping[str, Collection[str]]) -> list[str]:
    chosen = (route.target for route in routes if route.condition is None or route.condition.holds(signals))
    return list(dict.fromkeys(chosen))
