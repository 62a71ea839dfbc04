"""Fills the ``{{name}}`` places of a prompt, once: what is filled in is never read as a template again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from registries.catalog import ResolvedPrompt
from registries.contracts.errors import ValidationError
from registries.specs import PLACEHOLDER


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """The words for one call."""

    system: str | None
    text: str


def render_text(template: str, values: Mapping[str, str]) -> str:
    """One pass over the template; every other character, braces included, stays as it is. Raises KeyError."""
    return PLACEHOLDER.sub(lambda found: values[found.group(1)], template)


def render_prompt(prompt: ResolvedPrompt, values: Mapping[str, object]) -> RenderedPrompt:
    """Fill in the declared inputs; raises ValidationError for one that is missing or is no text."""
    texts: dict[str, str] = {}
    for name in prompt.inputs:
        value = values.get(name)
        if not isinstance(value, str):
            kind = "missing" if value is None else f"of type {type(value).__name__}, not text"
            raise ValidationError(
                f"prompt {prompt.id!r}: input {name!r} is {kind}", f"prompts.{prompt.id}.{name}"
            )
        texts[name] = value
    system = None if prompt.system is None else render_text(prompt.system, texts)
    return RenderedPrompt(system, render_text(prompt.text, texts))
