"""The OpenAI chat protocol, both directions of it, as pure functions."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from actors.engines.openai_faults import error_body, provider_failure
from registries.contracts.engine import EngineCall, EngineResult
from registries.contracts.errors import Fault, ProviderError
from registries.contracts.generation import Attachment, FinishReason

# What servers and gateways in front of other providers write, in small letters.
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "complete": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
}
_IMAGE_STARTS = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
_CHARS_PER_TOKEN = 4  # the usual rule of thumb, used only where a provider counts nothing, and flagged


def request_body(call: EngineCall, stream: bool, max_tokens_field: str = "max_tokens") -> dict[str, Any]:
    """The JSON body; what the call leaves open is left out, since many servers refuse a null."""
    body: dict[str, Any] = {
        "model": call.model,
        "messages": chat_messages(call),
        max_tokens_field: call.max_tokens,
        "temperature": call.temperature,
        "top_p": call.top_p,
    }
    optional = {
        "top_k": call.top_k,
        "stop": list(call.stop),
        "seed": call.seed,
        "response_format": call.response_format,
        "tools": list(call.tools),
        "user": call.metadata.get("user"),
    }
    body.update({name: value for name, value in optional.items() if value not in (None, [])})
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def chat_messages(call: EngineCall) -> list[dict[str, Any]]:
    """The messages; attachments go into the last user message, as content parts."""
    messages: list[dict[str, Any]] = [{"role": m.role, "content": m.content} for m in call.messages]
    if call.attachments:
        target = next((m for m in reversed(messages) if m["role"] == "user"), messages[-1])
        parts = [{"type": "image_url", "image_url": {"url": _image_url(item)}} for item in call.attachments]
        target["content"] = [{"type": "text", "text": target["content"]}, *parts]
    return messages


def _image_url(attachment: Attachment) -> str:
    if attachment.url:
        return attachment.url
    data = attachment.data or ""
    head = base64.b64decode(data[:16] + "=" * (-len(data[:16]) % 4))
    kind = next((kind for start, kind in _IMAGE_STARTS if head.startswith(start)), "image/png")
    return f"data:{kind};base64,{data}"


def parse_json(text: str | bytes, provider: str, model: str) -> Any:
    """The JSON of an answer; ProviderError(bad_response) where it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ProviderError(
            f"{provider} {model} sent no JSON: {error}", Fault.BAD_RESPONSE, provider, model
        ) from error


def parse_completion(body: Any, provider: str, model: str, call: EngineCall) -> EngineResult:
    """A whole answer; an error object inside a 200, or no choice, is a failure."""
    if error_body(body) is not None:
        raise provider_failure(provider, model, 200, body)
    try:
        choice = body["choices"][0]
        text = choice["message"].get("content") or ""
        finish = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ProviderError(
            f"{provider} {model} sent an answer without a choice", Fault.BAD_RESPONSE, provider, model
        ) from error
    tally = Tally(call)
    tally.text.append(str(text))
    tally.finish_reason = finish_of(finish, provider, model)
    tally.take_usage(body)
    return tally.result(None)


def finish_of(told: Any, provider: str, model: str) -> FinishReason:
    """Why an answer ended; ProviderError(stream_cut) where it is no end: "abort", "error", null, unknown."""
    known = _FINISH.get(str(told).lower())
    if known is None:
        raise ProviderError(
            f"the answer of {provider} {model} was cut: finish reason {told!r}"[:300],
            Fault.STREAM_CUT,
            provider,
            model,
        )
    return known


@dataclass(slots=True)
class Tally:
    """What a stream has said so far; raises on the first event that is no chat chunk."""

    call: EngineCall
    text: list[str] = field(default_factory=list)
    chunks: int = 0
    finish_reason: FinishReason | None = None
    usage: tuple[int, int] | None = None

    def take(self, event: Any, provider: str) -> str:
        """Text of one event, maybe empty; an error inside the stream is raised."""
        model = self.call.model
        if error_body(event) is not None:
            raise provider_failure(provider, model, 200, event)
        if not isinstance(event, dict) or not isinstance(event.get("choices"), list):
            raise ProviderError(
                f"{provider} {model} sent an event that is no chunk", Fault.BAD_RESPONSE, provider, model
            )
        self.take_usage(event)
        if not event["choices"]:
            return ""
        choice = event["choices"][0]
        if choice.get("finish_reason"):
            self.finish_reason = finish_of(choice["finish_reason"], provider, model)
        # A server that cannot stream sends its whole answer: a message instead of a delta.
        piece = str((choice.get("delta") or choice.get("message") or {}).get("content") or "")
        if piece:
            self.text.append(piece)
            self.chunks += 1
        return piece

    def take_usage(self, body: Any) -> None:
        """Token counts, where the body has them."""
        usage = body.get("usage")
        if isinstance(usage, dict):
            self.usage = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))

    def result(self, first_token_s: float | None) -> EngineResult:
        """The end; counts are estimated, and say so, where the provider gave none."""
        text = "".join(self.text)
        estimated = self.usage is None
        if self.usage is None:
            asked = sum(len(message.content) for message in self.call.messages)
            self.usage = (asked // _CHARS_PER_TOKEN + 1, max(self.chunks, len(text) // _CHARS_PER_TOKEN))
        return EngineResult(
            text, self.finish_reason or "stop", *self.usage, estimated=estimated, first_token_s=first_token_s
        )
