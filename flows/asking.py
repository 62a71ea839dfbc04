"""A node asks a model: prompt variant, request, streamed tokens, signals."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import pydantic

from flows.node_context import NodeContext, NodeOutcome
from flows.node_task import NodeTask
from flows.prompting import render_prompt
from flows.token_buffer import TokenBuffer
from registries.catalog import ResolvedPrompt
from registries.contracts.errors import InternalError, ValidationError
from registries.contracts.generation import (
    Constraints,
    Context,
    GenerationChunk,
    GenerationRequest,
    GenerationResult,
)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Answered:
    """The model's result, and the signals that its text raised."""

    result: GenerationResult
    signals: tuple[str, ...]

    def outcome(self, **data: object) -> NodeOutcome:
        """As the outcome of a node, with more data beside the signals."""
        facts = {"signals": list(self.signals), "finish_reason": self.result.finish_reason, **data}
        return NodeOutcome(self.result.text, facts, self.result)


async def ask(
    context: NodeContext,
    extra: Mapping[str, str] | None = None,
    temperature: float | None = None,
) -> Answered:
    """Put the node's prompt to its model; ``extra`` are texts that only this node's kind provides.

    Errors: those of ports.Generator, and ValidationError for a prompt that cannot be filled in.
    Cancelling aborts the call.
    """
    task = context.task
    if task.node.prompt is None:
        raise ValidationError(f"node {task.node.id!r} needs a prompt", f"nodes.{task.node.id}.prompt")
    model = task.model or context.ports.generator.resolve_model(_request(context, task.question, None, None))
    prompt = context.catalog.prompt(task.node.prompt, context.catalog.get_model(model).family)
    words = render_prompt(prompt, {**task.variables, **(extra or {})})
    request = _request(context, words.text, words.system, model, prompt, temperature)
    if context.ports.stream_tokens:
        result = await _streamed(context, request)
    else:
        result = await context.ports.generator.generate(request)
    return Answered(result, signals_in(result.text, prompt.signals))


def signals_in(text: str, patterns: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the patterns that the text matches."""
    return tuple(name for name, pattern in patterns.items() if re.search(pattern, text))


def _request(
    context: NodeContext,
    text: str,
    system: str | None,
    model: str | None,
    prompt: ResolvedPrompt | None = None,
    temperature: float | None = None,
) -> GenerationRequest:
    task = context.task
    limits = [task.max_tokens, prompt.max_tokens if prompt else None, task.node.params.get("max_tokens")]
    try:
        return GenerationRequest(
            prompt=text,
            model_key=model,
            strategy=task.strategy,
            max_tokens=min((limit for limit in limits if limit is not None), default=None),
            temperature=temperature,
            task_type=task.task_type,
            context=Context(system=system),
            constraints=Constraints(vram=None if task.model else task.available_vram_gb),
            seed=task.seed,
            metadata=_metadata(task),
            request_id=task.call_id,
            deadline_s=context.remaining_s(),
        )
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise ValidationError(f"node {task.node.id!r}: {reason}", f"nodes.{task.node.id}") from error


def _metadata(task: NodeTask) -> dict[str, str]:
    ours = {
        "run_id": task.run_id,
        "request_id": task.request_id,
        "flow": task.flow,
        "node": task.node.id,
        "role": task.node.role or task.node.id,
        "tenant": task.tenant,
        "user": task.user,
    }
    return {**task.metadata, **ours, **({"traceparent": task.traceparent} if task.traceparent else {})}


async def _streamed(context: NodeContext, request: GenerationRequest) -> GenerationResult:
    buffer = TokenBuffer(context.ports.clock)
    task, events = context.task, context.ports.events
    result: GenerationResult | None = None
    async with _closing(context.ports.generator.stream(request)) as items:
        async for item in items:
            if isinstance(item, GenerationChunk):
                text = buffer.add(item.text)
            else:
                result, text = item, buffer.rest()
            if text:
                await events.emit(
                    "node.token", task.node.id, {"text": text, "visit": task.visit}, task.attempt
                )
    if result is None:
        raise InternalError(f"the stream of node {task.node.id!r} ended without a result")
    return result


@asynccontextmanager
async def _closing(items: AsyncIterator[Item]) -> AsyncIterator[AsyncIterator[Item]]:
    """Close the stream on the way out: an unfinished call is aborted now, not when it is collected."""
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
