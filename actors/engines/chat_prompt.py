"""A chat as token ids, through the model's own tokenizer and template."""

from __future__ import annotations

from typing import Any

from registries.contracts.engine import EngineCall
from registries.contracts.errors import Fault, ProviderError, ValidationError
from registries.specs import ModelSpec


def encode_chat(tokenizer: Any, call: EngineCall) -> list[int]:
    """Token ids with the generation prompt; a model without a template gets the texts, a line each.

    Raises ValidationError(param="messages") for what the template refuses: many take no system text, or
    turns only in a strict order.
    """
    if getattr(tokenizer, "chat_template", None):
        from jinja2 import TemplateError

        messages = [{"role": message.role, "content": message.content} for message in call.messages]
        tools = list(call.tools) or None
        try:
            text = tokenizer.apply_chat_template(
                messages, tools=tools, add_generation_prompt=True, tokenize=False
            )
        # Templates also trip over messages that they did not foresee, with errors of Python's own.
        except (TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(message.role for message in call.messages)
            raise ValidationError(
                f"the chat template of {call.model} refuses these messages ({roles}): {error}", "messages"
            ) from error
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    text = "\n".join(message.content for message in call.messages)
    return list(tokenizer(text)["input_ids"])


def refuse_attachments(spec: ModelSpec, call: EngineCall) -> None:
    """Raise ValidationError(param="attachments"): the local engines take text."""
    if call.attachments:
        raise ValidationError(
            f"model {spec.key} takes text only, the call has {len(call.attachments)} attachment(s); "
            "choose a model with the vision capability",
            "attachments",
        )


def room_for_answer(spec: ModelSpec, call: EngineCall, prompt_tokens: int, window: int) -> int:
    """Tokens the answer may have: max_tokens, or what the context window leaves.

    Raises ProviderError(context_window, param="prompt") when the prompt leaves nothing.
    """
    room = window - prompt_tokens
    if room < 1:
        raise ProviderError(
            f"the prompt has {prompt_tokens} tokens, the context window of {spec.key} is {window} "
            "with at least 1 for the answer",
            Fault.CONTEXT_WINDOW,
            spec.provider,
            spec.key,
            "prompt",
            context={"prompt_tokens": prompt_tokens, "context_window": window},
        )
    return min(call.max_tokens, room)
