"""What can be declared in YAML: models, strategies, prompts and flows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from registries.checked_base_url import checked_base_url
from registries.contracts.frozen import Frozen

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$")
IDENTIFIER = re.compile(r"^[a-z][a-z0-9_]{0,63}$")

EngineName = Literal["vllm", "transformers", "openai_compatible", "litellm", "scripted"]
LOCAL_ENGINES: frozenset[str] = frozenset({"vllm", "transformers"})
Capability = Literal["chat", "tools", "function_schemas", "vision", "judge", "streaming"]
Tier = Literal["light", "balanced", "strong", "judge"]


class CostProfile(Frozen):
    """Prices in US dollars for a million tokens; None means unknown, which is never taken for free."""

    prompt_usd_per_mtok: float | None = Field(default=0.0, ge=0)
    completion_usd_per_mtok: float | None = Field(default=0.0, ge=0)


class Scope(Frozen):
    """What a narrow model can answer: a sentence for people, a pattern (re.search, any case) for us."""

    description: str
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"pattern {value!r} is not a regular expression: {error}") from error
        return value

    def covers(self, question: str) -> bool:
        """Whether the question is inside the scope."""
        return re.search(self.pattern, question, re.IGNORECASE) is not None


class Scaling(Frozen):
    """Bounds of a local model's replicas, and what one replica takes on.

    ``num_gpus`` None: as many as the engine takes where there are GPUs, else none; 0: none is reserved.
    """

    min_replicas: int = Field(default=1, le=1000)
    max_replicas: int = Field(default=1, ge=1, le=1000)
    max_ongoing_requests: int = Field(default=64, ge=1)
    max_queued_requests: int = Field(default=256, ge=0)
    target_ongoing_requests: float = Field(default=16, gt=0)
    upscale_delay_s: float = Field(default=2.0, ge=0)
    downscale_delay_s: float = Field(default=60.0, ge=0)
    num_cpus: float = Field(default=1.0, ge=0)
    num_gpus: float | None = Field(default=None, ge=0)

    @field_validator("min_replicas")
    @classmethod
    def _stays(cls, value: int) -> int:
        """Calls wait for a running replica, so that a model without one would never be called again."""
        if value < 1:
            raise ValueError(f"must be at least 1, got {value}: a model does not come back from no replica")
        return value


class ModelSpec(Frozen):
    """One entry of the model registry.

    ``engine`` says how it is reached, ``location`` what the engine knows it by: a folder, a Hugging Face
    id, a provider's model name; ``embedded:NAME`` is a model of this package. ``base_url`` and
    ``api_key_env`` (the NAME of an environment variable, never a key) are for remote ones.
    """

    key: str
    family: str
    provider: str
    engine: EngineName
    location: str
    base_url: str | None = None
    api_key_env: str | None = None
    context_window: int = Field(ge=16)
    max_output_tokens: int = Field(default=4096, ge=1)
    default_strategy: str
    capabilities: tuple[Capability, ...] = ("chat", "streaming")
    task_types: tuple[str, ...] = ("general",)
    cost_profile: CostProfile = CostProfile()
    min_vram_gb: float = Field(default=0.0, ge=0)
    quality: float = Field(default=0.5, ge=0, le=1)
    typical_latency_s: float = Field(default=1.0, gt=0)
    tier: Tier | None = None
    scope: Scope | None = None
    scaling: Scaling = Scaling()
    engine_options: dict[str, Any] = Field(default_factory=dict)
    enabled: bool = True

    @field_validator("key")
    @classmethod
    def _named(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError(f"key {value!r} must match {NAME.pattern}")
        return value

    @field_validator("base_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return None if value is None else checked_base_url(value)

    @model_validator(mode="after")
    def _reachable(self) -> ModelSpec:
        if self.engine == "openai_compatible" and not self.base_url:
            raise ValueError("engine openai_compatible needs base_url")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the weights live in this cluster (a ModelReplica deployment)."""
        return self.engine in LOCAL_ENGINES or (self.engine == "scripted" and self.base_url is None)

    @property
    def is_embedded(self) -> bool:
        """Whether this is one of the small models that the package carries."""
        return self.location.startswith("embedded:")

    def has(self, capability: Capability) -> bool:
        """Whether the entry declares this capability."""
        return capability in self.capabilities


class Sampling(Frozen):
    """Sampling of a strategy."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)


class Limits(Frozen):
    """Limits of a strategy: tokens and seconds."""

    max_tokens: int = Field(default=1024, ge=1)
    timeout_s: float = Field(default=60.0, gt=0)


class RetryPolicy(Frozen):
    """min(factor ** attempt, max_backoff_s) plus up to 10 % of jitter (features B7)."""

    max_retries: int = Field(default=3, ge=0, le=10)
    backoff_factor: float = Field(default=2.0, ge=1)
    max_backoff_s: float = Field(default=60.0, gt=0)


class StrategySpec(Frozen):
    """How to call: sampling, limits, retries, and the ordered chain of models to fall back on."""

    name: str
    description: str = ""
    sampling: Sampling = Sampling()
    limits: Limits = Limits()
    retry: RetryPolicy = RetryPolicy()
    fallbacks: tuple[str, ...] = ()
    prefer: Literal["quality", "cost", "latency"] = "quality"


def _compiled_signals(signals: dict[str, str]) -> dict[str, str]:
    """Refuse a signal that no condition could name, or whose pattern is no regular expression."""
    for name, pattern in signals.items():
        if not IDENTIFIER.match(name):
            raise ValueError(f"signal {name!r} must match {IDENTIFIER.pattern}")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"signal {name}: {pattern!r} is not a regular expression: {error}") from error
    return signals


Signals = Annotated[dict[str, str], AfterValidator(_compiled_signals)]


class PromptSpec(Frozen):
    """A prompt: typed inputs, a text with ``{{name}}`` and nothing else, and signals read off the answer.

    ``variants`` hold other words for a model family (key: family). ``signals`` maps a name to a regular
    expression; a node's result says which matched (e.g. ``no_fault``).
    """

    id: str
    version: int = Field(default=1, ge=1)
    inputs: tuple[str, ...]
    system: str | None = None
    text: str
    signals: Signals = Field(default_factory=dict)
    max_tokens: int | None = Field(default=None, ge=1)
    variants: dict[str, PromptVariant] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _closed(self) -> PromptSpec:
        bodies = [("text", f"{self.system or ''} {self.text}")]
        bodies += [
            (f"variants.{family}.text", f"{v.system or ''} {v.text}") for family, v in self.variants.items()
        ]
        for where, words in bodies:
            if unknown := sorted(placeholders(words) - set(self.inputs)):
                raise ValueError(f"{where} uses {unknown}, which inputs {list(self.inputs)} do not declare")
        return self


class PromptVariant(Frozen):
    """The same prompt in the words that one model family needs."""

    system: str | None = None
    text: str
    signals: Signals = Field(default_factory=dict)
    max_tokens: int | None = Field(default=None, ge=1)


PromptSpec.model_rebuild()

PLACEHOLDER = re.compile(r"\{\{\s*([a-z][a-z0-9_]*)\s*\}\}")


def placeholders(text: str) -> set[str]:
    """Names used as ``{{name}}`` in the text."""
    return set(PLACEHOLDER.findall(text))


class NodeSpec(Frozen):
    """One node of a flow. ``model`` is a model_key, ``tier:NAME``, or None for the gateway's choice."""

    id: str
    kind: str
    role: str = ""
    prompt: str | None = None
    model: str | None = None
    strategy: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    retry: RetryPolicy | None = None
    timeout_s: float | None = Field(default=None, gt=0)
    cache: bool = False
    placement: Literal["inline", "task"] = "inline"
    on_error: Literal["fail", "continue"] = "fail"

    @field_validator("id")
    @classmethod
    def _identifier(cls, value: str) -> str:
        if not IDENTIFIER.match(value):
            raise ValueError(f"node id {value!r} must match {IDENTIFIER.pattern}")
        return value


class EdgeSpec(Frozen):
    """An edge; ``condition`` is ``node.signal`` or ``not node.signal``, None means always."""

    source: str
    target: str
    condition: str | None = None


class LoopSpec(Frozen):
    """Nodes repeated in order, at most ``rounds`` times, until a signal (``node.signal``) holds.

    ``until`` is checked right after the node it names: the rest of that round is skipped.
    """

    nodes: tuple[str, ...] = Field(min_length=1)
    rounds: int = Field(default=1, ge=1, le=20)
    until: str | None = None


class OutputSpec(Frozen):
    """Where the answer is: the first of ``answer`` that has an output. ``baseline`` is the first answer."""

    answer: tuple[str, ...] = Field(min_length=1)
    baseline: str | None = None


class FlowSpec(Frozen):
    """A deliberation as data; it never carries code."""

    name: str
    description: str = ""
    input: tuple[str, ...] = ("prompt",)
    nodes: tuple[NodeSpec, ...] = Field(min_length=1, max_length=200)
    edges: tuple[EdgeSpec, ...] = ()
    loops: tuple[LoopSpec, ...] = ()
    output: OutputSpec

    @cached_property
    def version(self) -> str:
        """Content hash: sha256 over canonical JSON, first 16 hex digits. Kept: it costs 0.1 ms."""
        return digest_of(self.document)[:16]

    @cached_property
    def document(self) -> dict[str, Any]:
        """The flow as JSON values, as stores and forks keep it; not to be changed."""
        return self.model_dump(mode="json")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> FlowSpec:
        """A copy; it works out its own version and document, which pydantic would copy along."""
        copy = super().model_copy(update=update, deep=deep)
        for name in ("version", "document"):
            copy.__dict__.pop(name, None)
        return copy


def digest_of(value: Any) -> str:
    """sha256 of canonical JSON (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
