"""What a caller asks of a model, and what it gets back."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, computed_field, field_validator, model_validator

from registries.contracts.frozen import Frozen, refuse_boolean

MAX_TOKENS_CEILING = 131_072
MAX_PROMPT_CHARS = 2_000_000
StopString = Annotated[str, Field(min_length=1, max_length=1000)]


class Attachment(Frozen):
    """An image for a model with the vision capability: a URL (http, https, data), or base64 data."""

    type: Literal["image_url", "image"]
    url: str | None = None
    data: str | None = None

    @field_validator("url")
    @classmethod
    def _is_reachable(cls, value: str | None) -> str | None:
        try:
            parts = urlsplit(value or "")
        except ValueError as error:
            raise ValueError(f"url is no URL: {error}") from error
        if value and not (parts.scheme == "data" or (parts.scheme in ("http", "https") and parts.netloc)):
            raise ValueError("url must begin with http://, https:// or data:")
        return value

    @field_validator("data")
    @classmethod
    def _is_base64(cls, value: str | None) -> str | None:
        """Lines, as ``base64 FILE`` prints them, are joined."""
        joined = "".join(value.split()) if value else value
        try:
            base64.b64decode(joined or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"data is not base64: {error}") from error
        return joined

    @model_validator(mode="after")
    def _has_its_payload(self) -> Attachment:
        if self.type == "image_url" and not self.url:
            raise ValueError("an attachment of type image_url needs url")
        if self.type == "image" and not self.data:
            raise ValueError("an attachment of type image needs data (base64)")
        return self


class Message(Frozen):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Context(Frozen):
    """What surrounds the prompt: earlier turns, a system text, tools and attachments."""

    history: tuple[Message, ...] = ()
    system: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    attachments: tuple[Attachment, ...] = ()


class Constraints(Frozen):
    """Hard limits on the choice of a model. Units: GB, seconds, US dollars."""

    vram: float | None = Field(default=None, ge=0)
    latency_budget: float | None = Field(default=None, gt=0)
    cost_budget: float | None = Field(default=None, ge=0)

    _numbers = field_validator("vram", "latency_budget", "cost_budget", mode="before")(refuse_boolean)


class GenerationRequest(Frozen):
    """One model call, as any flow or client makes it.

    Either ``prompt`` or ``messages`` is given; ``model_key`` or, failing that, ``task_type`` and
    ``constraints`` select the model. ``deadline_s`` is the time that remains, in seconds: processes
    share no clock.
    """

    prompt: str = Field(default="", max_length=MAX_PROMPT_CHARS)
    model_key: str | None = None
    strategy: str | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS_CEILING)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    task_type: str | None = None
    context: Context = Context()
    constraints: Constraints = Constraints()
    messages: tuple[Message, ...] = ()
    stop: tuple[StopString, ...] = Field(default=(), max_length=16)
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    response_format: dict[str, Any] | None = None
    attachments: tuple[Attachment, ...] = ()
    metadata: dict[str, str] = Field(default_factory=dict)
    request_id: str = ""
    deadline_s: float | None = Field(default=None, gt=0)

    _numbers = field_validator(
        "max_tokens", "temperature", "top_p", "top_k", "seed", "deadline_s", mode="before"
    )(refuse_boolean)

    @field_validator("response_format")
    @classmethod
    def _has_its_shape(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """Which types there are is the engine's business; those of OpenAI have a shape."""
        if value is None:
            return None
        if not isinstance(value.get("type"), str):
            raise ValueError("response_format needs a type: text, json_object or json_schema")
        if value["type"] == "json_schema":
            described = value.get("json_schema")
            if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
                raise ValueError("response_format of type json_schema needs json_schema.schema, an object")
        return value

    @model_validator(mode="after")
    def _asks_something(self) -> GenerationRequest:
        if not self.prompt.strip() and not self.messages:
            raise ValueError("prompt must not be empty (or give messages)")
        return self

    def chat(self) -> tuple[Message, ...]:
        """The whole conversation as messages: system, history, messages, then the prompt."""
        turns: list[Message] = []
        if self.context.system:
            turns.append(Message(role="system", content=self.context.system))
        turns.extend(self.context.history)
        turns.extend(self.messages)
        if self.prompt:
            turns.append(Message(role="user", content=self.prompt))
        return tuple(turns)

    def all_attachments(self) -> tuple[Attachment, ...]:
        """Attachments of the request and of its context."""
        return self.attachments + self.context.attachments


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]
Outcome = Literal["ok", "error", "skipped_open", "cancelled"]


class Timings(Frozen):
    """Seconds: loading (0 for a warm model), inference, and everything together."""

    load_time: float = 0.0
    inference_time: float = 0.0
    total: float = 0.0
    first_token: float | None = None


class Usage(Frozen):
    """Tokens in and out, and the cost. Money is integer micro-dollars inside; JSON also shows ``cost``."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micro_usd: int = 0
    estimated: bool = False
    """True where the provider told no counts and we counted ourselves."""

    @model_validator(mode="before")
    @classmethod
    def _cost_is_derived(cls, data: Any) -> Any:
        """Our own JSON comes back with ``cost`` in it."""
        if isinstance(data, dict) and "cost" in data:
            return {name: value for name, value in data.items() if name != "cost"}
        return data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cost(self) -> float:
        """US dollars."""
        return self.cost_micro_usd / 1_000_000

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost_micro_usd=self.cost_micro_usd + other.cost_micro_usd,
            estimated=self.estimated or other.estimated,
        )


class Attempt(Frozen):
    """One try at one provider. ``fault`` is a Fault value, or None."""

    model: str
    provider: str
    outcome: Outcome
    latency_s: float = 0.0
    fault: str | None = None
    message: str | None = None


class BreakerFact(Frozen):
    """State of the breaker that guarded the answer's provider when the answer was made."""

    key: str
    state: Literal["closed", "open", "half_open"]
    epoch: int


class GenerationResult(Frozen):
    """A model's answer and how it came to be. ``source`` is "local" or the provider's name."""

    text: str
    tokens_generated: int
    timings: Timings
    usage: Usage
    source: str
    cache_hit: bool = False
    model_resolved: str
    strategy: str | None = None
    finish_reason: FinishReason = "stop"
    attempts: tuple[Attempt, ...] = ()
    breaker: BreakerFact | None = None
    request_id: str = ""


class GenerationChunk(Frozen):
    """A piece of a streamed answer; several tokens, coalesced."""

    text: str
    tokens: int = 1
