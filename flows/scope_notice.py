"""Says before an answer that the question is outside what the models at hand can do."""

from __future__ import annotations

from collections.abc import Sequence

from registries.specs import ModelSpec


def scope_notice(question: str, models: Sequence[ModelSpec]) -> str | None:
    """A sentence for the user, or None when every model can be expected to cope."""
    outside = {m.key: m for m in models if m.scope is not None and not m.scope.covers(question)}
    if not outside:
        return None
    names = _listed(sorted(outside))
    abilities = " ".join(dict.fromkeys(m.scope.description.strip() for m in outside.values() if m.scope))
    return (
        f"This question is outside what {names} can do: {abilities} "
        "What they answer shows how the runtime works and nothing more. For a real answer, configure a "
        "model: a Hugging Face id or folder, an OpenAI-compatible URL, or a provider's key."
    )


def fallback_notice(question: str, node_id: str, wanted: str, answered: ModelSpec) -> str | None:
    """A sentence when a node's answer came from a narrow model that was not chosen for it."""
    if answered.key == wanted or answered.scope is None or answered.scope.covers(question):
        return None
    return f"{node_id}: {wanted} did not answer; {answered.key} did, which is not made for such questions."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
