"""A named collection that refuses duplicates, suggests near names, and freezes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from registries.contracts.errors import Conflict, NotFound

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things of one kind (``kind`` is the word in messages: "model", "flow" …)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}
        self._frozen = False

    def register(self, name: str, item: T) -> None:
        """Add; raises Conflict for a duplicate or a frozen registry."""
        if self._frozen:
            raise Conflict(f"the {self.kind} registry is frozen; {name!r} cannot be added", param=name)
        if name in self._items:
            raise Conflict(f"{self.kind} {name!r} is registered twice", param=name)
        self._items[name] = item

    def get(self, name: str) -> T:
        """The thing of that name; raises NotFound with a suggestion and the names there are."""
        try:
            return self._items[name]
        except KeyError:
            raise NotFound(self._unknown(name), param=self.kind) from None

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._items)

    def freeze(self) -> None:
        """From here on nothing can be added."""
        self._frozen = True

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._items, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"unknown {self.kind} {name!r}.{hint} Known: {', '.join(self.names()) or 'none'}"

    def items(self) -> Mapping[str, T]:
        """A copy of the whole mapping."""
        return dict(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[T]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)
