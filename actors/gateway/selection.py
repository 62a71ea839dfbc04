"""Which model and strategy serve a request: hard constraints filter, the strategy ranks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from actors.gateway.settlement import estimate_tokens, worst_case_usd
from actors.local_models import local_models
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import CapacityError, ValidationError
from registries.contracts.generation import Constraints, GenerationRequest
from registries.specs import LOCAL_ENGINES, ModelSpec, StrategySpec

TokenCounter = Callable[[ModelSpec, GenerationRequest], int | None]
"""Exact prompt tokens for a model, or None where this process cannot count them."""

MAX_CHAIN = 6
"""Longest chain of candidates; more would only burn the deadline."""
LEAST_TOKENS_PER_CHAR = 1 / 32
"""No tokenizer we know makes fewer tokens (runs of spaces are the extreme): a sure lower bound."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The strategy in force and the models to try, best first (at least one)."""

    strategy: StrategySpec
    models: tuple[ModelSpec, ...]


class Selector:
    """Chooses over one catalog; pure and cheap, nothing here waits.

    ``loaded`` are the local models within reach; by default those that the runtime deploys.
    """

    def __init__(
        self,
        catalog: Catalog,
        config: RuntimeConfig,
        count_tokens: TokenCounter | None = None,
        loaded: Collection[ModelSpec] | None = None,
    ) -> None:
        self._catalog = catalog
        self._config = config
        self._count_tokens = count_tokens
        reached = local_models(config, catalog) if loaded is None else loaded
        keys = tuple(m.key for m in reached)
        self._unusable = {m.key: why for m in catalog.models if (why := unusable_because(m, config, keys))}

    def strategy(self, request: GenerationRequest) -> StrategySpec:
        """The request's strategy, else its model's, else the configured default; raises NotFound."""
        name = request.strategy
        if name is None and request.model_key is not None:
            name = self._catalog.model_for(request.model_key).default_strategy
        return self._catalog.strategies.get(name or self._config.default_strategy)

    def choose(self, request: GenerationRequest) -> Choice:
        """Primary and fallbacks.

        Raises NotFound (unknown names), ValidationError (the named model cannot serve this request) and
        CapacityError (no model fits the constraints).
        """
        if request.context.tools:
            # An answer has no place for calls of tools: they would be lost without a word.
            raise ValidationError(
                "context.tools is not taken yet: an answer cannot carry tool calls; leave it out",
                param="context.tools",
            )
        strategy = self.strategy(request)
        if request.model_key is not None:
            first = self._catalog.model_for(request.model_key)
            self._require(first, request, strategy)
            ranked = [first]
        else:
            ranked = self._ranked(request, strategy)
        named = [self._catalog.model_for(reference) for reference in strategy.fallbacks]
        # Without a key for it a provider is no fallback at all: most of a chain, and not judged every call.
        usable = [m for m in named if m.key not in self._unusable]
        fallbacks = [m for m in usable if self._objection(m, request, strategy) is None]
        chain = ranked[:1] + fallbacks + ranked[1:]
        unique = list({m.key: m for m in chain}.values())
        return Choice(strategy, tuple(unique[:MAX_CHAIN]))

    def max_tokens(self, spec: ModelSpec, request: GenerationRequest, strategy: StrategySpec) -> int:
        """The request's limit, else the smaller of configuration and strategy; never above the model's."""
        asked = request.max_tokens or min(self._config.max_tokens_default, strategy.limits.max_tokens)
        return min(asked, spec.max_output_tokens)

    def _ranked(self, request: GenerationRequest, strategy: StrategySpec) -> list[ModelSpec]:
        usable = [m for m in self._catalog.list_models() if m.key not in self._unusable]
        if request.all_attachments() and not any(m.has("vision") for m in usable):
            raise ValidationError(
                "no usable model has the vision capability, so attachments cannot be read",
                param="attachments",
            )
        fitting, objections = [], []
        for model in self._catalog.list_models():
            why = self._objection(model, request, strategy) or self._mismatch(model, request)
            if why is None:
                fitting.append(model)
            else:
                objections.append(f"{model.key} {why.message}")
        if not fitting:
            asked = f"task_type {request.task_type!r}" if request.task_type else "the request"
            reasons = "; ".join(objections) or "the model registry has no enabled entry"
            raise CapacityError(f"no model fits {asked}: {reasons}", param="constraints")
        return sorted(fitting, key=lambda m: self._rank(m, strategy))

    def _rank(self, model: ModelSpec, strategy: StrategySpec) -> tuple[bool, float, float, float, str]:
        """Smaller is better: the default provider first, then what the strategy prefers, then the rest."""
        price = worst_case_usd(model, 1_000_000, 1_000_000)
        cost = float("inf") if price is None else price
        scores = {
            "quality": (-model.quality, cost, model.typical_latency_s),
            "cost": (cost, -model.quality, model.typical_latency_s),
            "latency": (model.typical_latency_s, -model.quality, cost),
        }
        return (
            self._config.default_provider not in (source_of(model), model.provider),
            *scores[strategy.prefer],
            model.key,
        )

    def _mismatch(self, model: ModelSpec, request: GenerationRequest) -> ValidationError | None:
        """Reasons that count only when we choose: a caller who names a model may ask it anything."""
        if not model.has("chat"):
            return ValidationError("does not chat", param="model_key")
        if request.task_type and not self._catalog.supports_task(model.key, request.task_type):
            return ValidationError(f"does not do task_type {request.task_type!r}", param="task_type")
        if model.is_local and model.min_vram_gb > self._config.max_vram_usage_gb:
            return ValidationError(
                f"needs {model.min_vram_gb:g} GB of VRAM,"
                f" MAX_VRAM_USAGE_GB is {self._config.max_vram_usage_gb:g}",
                param="MAX_VRAM_USAGE_GB",
            )
        return None

    def _require(self, model: ModelSpec, request: GenerationRequest, strategy: StrategySpec) -> None:
        why = self._objection(model, request, strategy)
        if why is not None:
            kind = type(why)
            raise kind(f"model {model.key!r} {why.message}", param=why.param)

    def _objection(
        self, model: ModelSpec, request: GenerationRequest, strategy: StrategySpec
    ) -> ValidationError | CapacityError | None:
        """Why this model cannot serve the request at all, else None."""
        if model.key in self._unusable:
            return ValidationError(self._unusable[model.key], param="model_key")
        if request.all_attachments() and not model.has("vision"):
            return ValidationError(
                "has no vision capability, so it takes no attachments; name one that has it, or send text",
                param="attachments",
            )
        return self._too_long(model, request) or self._over(model, request, strategy)

    def _too_long(self, model: ModelSpec, request: GenerationRequest) -> ValidationError | None:
        chars = prompt_chars(request)
        counted = self._count_tokens(model, request) if self._count_tokens else None
        if counted is not None and counted >= model.context_window:
            return ValidationError(
                f"has a context window of {model.context_window} tokens; the prompt has {counted}",
                param="prompt",
            )
        if chars * LEAST_TOKENS_PER_CHAR >= model.context_window:
            return ValidationError(
                f"has a context window of {model.context_window} tokens; the prompt's {chars} characters"
                f" are at least {int(chars * LEAST_TOKENS_PER_CHAR)} tokens",
                param="prompt",
            )
        return None

    def _over(
        self, model: ModelSpec, request: GenerationRequest, strategy: StrategySpec
    ) -> CapacityError | None:
        limits: Constraints = request.constraints
        if limits.vram is not None and model.min_vram_gb > limits.vram:
            return CapacityError(
                f"needs {model.min_vram_gb:g} GB of VRAM, constraints.vram is {limits.vram:g}",
                param="constraints.vram",
            )
        if limits.latency_budget is not None and model.typical_latency_s > limits.latency_budget:
            return CapacityError(
                f"typically takes {model.typical_latency_s:g} s,"
                f" constraints.latency_budget is {limits.latency_budget:g}",
                param="constraints.latency_budget",
            )
        if limits.cost_budget is None:
            return None
        tokens = estimate_tokens(prompt_chars(request))
        cost = worst_case_usd(model, tokens, self.max_tokens(model, request, strategy))
        if cost is not None and cost <= limits.cost_budget:
            return None
        worst = "has no known price" if cost is None else f"may cost {cost:.6f} US dollars"
        return CapacityError(
            f"{worst}, constraints.cost_budget is {limits.cost_budget:g}", param="constraints.cost_budget"
        )


def unusable_because(model: ModelSpec, config: RuntimeConfig, loaded: Collection[str]) -> str | None:
    """Why this runtime, with the local models ``loaded``, cannot reach the model at all, else None."""
    if not model.enabled:
        return "is disabled in the registry (enabled: false)"
    if model.is_local and model.key not in loaded:
        return f"is not loaded in this runtime; loaded: {', '.join(loaded) or 'none'} (see PARLEY_MODELS)"
    if model.api_key_env and not config.provider_keys.get(model.api_key_env):
        return f"needs the provider key {model.api_key_env}, which is not set"
    return None


def source_of(model: ModelSpec) -> str:
    """Whose answer it is: "local" for weights in this cluster, else the provider's name."""
    return "local" if model.engine in LOCAL_ENGINES else model.provider


def prompt_chars(request: GenerationRequest) -> int:
    """Characters of the whole conversation."""
    # Not over request.chat(), which builds every message for its length alone.
    context = request.context
    turns = (*context.history, *request.messages)
    return len(context.system or "") + sum(len(turn.content) for turn in turns) + len(request.prompt)
