"""Everything that is declared, cross-checked and frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registries.contracts.errors import NotFound
from registries.registry import Registry
from registries.specs import FlowSpec, ModelSpec, PromptSpec, StrategySpec, digest_of


@dataclass(frozen=True, slots=True)
class ResolvedPrompt:
    """A prompt in the words for one model family."""

    id: str
    version: int
    inputs: tuple[str, ...]
    system: str | None
    text: str
    signals: Mapping[str, str]
    max_tokens: int | None


class Catalog:
    """Models, strategies, prompts and flows of one runtime.

    Built from checked parts (see registries.loader.load_catalog, which names every dangling reference
    with its file and key); ``digest`` is equal exactly when the contents are.
    """

    def __init__(
        self,
        models: Iterable[ModelSpec],
        strategies: Iterable[StrategySpec],
        prompts: Iterable[PromptSpec] = (),
        flows: Iterable[FlowSpec] = (),
        tiers: Mapping[str, str] | None = None,
    ) -> None:
        self.models: Registry[ModelSpec] = Registry("model")
        self.strategies: Registry[StrategySpec] = Registry("strategy")
        self.prompts: Registry[PromptSpec] = Registry("prompt")
        self.flows: Registry[FlowSpec] = Registry("flow")
        self.tiers: dict[str, str] = dict(tiers or {})
        for model in models:
            self.models.register(model.key, model)
        for strategy in strategies:
            self.strategies.register(strategy.name, strategy)
        for prompt in prompts:
            self.prompts.register(prompt.id, prompt)
        for flow in flows:
            self.flows.register(flow.name, flow)
        for registry in (self.models, self.strategies, self.prompts, self.flows):
            registry.freeze()
        self.digest = self._digest()

    def _digest(self) -> str:
        return digest_of(
            {
                "models": [m.model_dump(mode="json") for m in sorted(self.models, key=lambda m: m.key)],
                "strategies": [
                    s.model_dump(mode="json") for s in sorted(self.strategies, key=lambda s: s.name)
                ],
                "prompts": [p.model_dump(mode="json") for p in sorted(self.prompts, key=lambda p: p.id)],
                "flows": [f.model_dump(mode="json") for f in sorted(self.flows, key=lambda f: f.name)],
                "tiers": self.tiers,
            }
        )

    def get_model(self, key: str) -> ModelSpec:
        """The entry of that key; raises NotFound with a suggestion."""
        return self.models.get(key)

    def list_models(self) -> list[ModelSpec]:
        """Every enabled entry, by key."""
        return [m for m in sorted(self.models, key=lambda m: m.key) if m.enabled]

    def supports_task(self, model_key: str, task_type: str) -> bool:
        """Whether the model declares the task type ("general" covers everything)."""
        declared = self.get_model(model_key).task_types
        return task_type in declared or "general" in declared

    def model_for(self, reference: str) -> ModelSpec:
        """Resolve a model_key or ``tier:NAME``; raises NotFound."""
        if reference.startswith("tier:"):
            tier = reference.removeprefix("tier:")
            if tier not in self.tiers:
                raise NotFound(
                    f"unknown tier {tier!r}. Known: {', '.join(sorted(self.tiers)) or 'none'}", param="tier"
                )
            reference = self.tiers[tier]
        return self.get_model(reference)

    def prompt(self, prompt_id: str, family: str) -> ResolvedPrompt:
        """The prompt in the variant for the family, else its default text; raises NotFound."""
        spec = self.prompts.get(prompt_id)
        body = spec.variants.get(family)
        return ResolvedPrompt(
            id=spec.id,
            version=spec.version,
            inputs=spec.inputs,
            system=body.system if body else spec.system,
            text=body.text if body else spec.text,
            signals=(body.signals or spec.signals) if body else spec.signals,
            max_tokens=(body.max_tokens if body else None) or spec.max_tokens,
        )
