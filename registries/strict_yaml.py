"""YAML for declarations: safe types only, a key given twice is an error, every error says its line."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import yaml


class StrictYamlError(Exception):
    """The text is no YAML, or a mapping in it names a key twice; ``problems`` has one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems)
        self.problems = problems


class _StrictLoader(yaml.SafeLoader):
    """Collects duplicate keys instead of letting the last one win in silence; refuses aliases."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.problems: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Aliases can blow a small file up to gigabytes, and no declaration needs them."""
        if self.check_event(yaml.AliasEvent):
            event = cast(Any, self).peek_event()
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                self.problems.append(f"line {key_node.start_mark.line + 1}: key {key!r} is given twice")
            elif isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_strict_yaml(text: str) -> Any:
    """The value that the text describes, None for an empty one; raises StrictYamlError with every problem."""
    try:
        loader = _StrictLoader(text)
        value = loader.get_single_data()
    except yaml.YAMLError as error:
        raise StrictYamlError([_describe(error)]) from error
    except RecursionError as error:
        raise StrictYamlError(["the value is nested too deeply"]) from error
    if loader.problems:
        raise StrictYamlError(loader.problems)
    return value


def _describe(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return f"{where}not valid YAML: {error.problem or error.context}"
    return f"not valid YAML: {' '.join(str(error).split())}"
