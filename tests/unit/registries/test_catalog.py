"""Look-ups in a catalog."""

from __future__ import annotations

import pytest

from registries.contracts.errors import Conflict, NotFound
from registries.loader import load_catalog
from registries.registry import Registry

CATALOG = load_catalog()


def test_an_unknown_name_is_answered_with_a_suggestion_and_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"unknown model 'nano_m'\. Did you mean 'nano-m'\? Known: "):
        CATALOG.get_model("nano_m")


def test_tiers_are_references_to_models() -> None:
    assert CATALOG.model_for("tier:light").key == "nano-s"
    assert CATALOG.model_for("nano-m").key == "nano-m"
    with pytest.raises(NotFound, match=r"unknown tier 'huge'\. Known: balanced, light, strong"):
        CATALOG.model_for("tier:huge")


def test_a_task_is_supported_when_declared_or_general() -> None:
    assert CATALOG.supports_task("nano-m", "arithmetic")
    assert CATALOG.supports_task("gpt-5.6", "anything")


def test_a_prompt_is_resolved_for_a_family_else_as_it_is() -> None:
    assert CATALOG.prompt("create", "nano").text == "{{input}}"
    assert CATALOG.prompt("create", "nano").max_tokens == 32
    assert "Answer in full" in CATALOG.prompt("create", "other").text


def test_a_catalog_is_frozen() -> None:
    with pytest.raises(Conflict, match="frozen"):
        CATALOG.models.register("x", CATALOG.get_model("nano-m"))


def test_a_registry_refuses_duplicates() -> None:
    registry: Registry[int] = Registry("thing")
    registry.register("a", 1)
    with pytest.raises(Conflict, match="thing 'a' is registered twice"):
        registry.register("a", 2)
    assert ("a" in registry, len(registry), registry.items()) == (True, 1, {"a": 1})
