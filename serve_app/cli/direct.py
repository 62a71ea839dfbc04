"""`parley direct`."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from registries.contracts.errors import InternalError, ValidationError
from registries.contracts.generation import Attachment, GenerationChunk, GenerationRequest, GenerationResult
from serve_app.cli.command import Command, command, request_from
from serve_app.cli.engine_noise import engine_noise_in
from serve_app.cli.options import AsJson, Deadline, MaxTokens, Prompt, PromptOption, Seed, Strategy, Stream
from serve_app.cli.prompt_input import question_from
from serve_app.cli.show_result import generation_facts
from serve_app.lifecycle.find_runtime import find_runtime


def direct(
    prompt: Prompt = None,
    prompt_option: PromptOption = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A model's key (see `parley models`).")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system text.")] = None,
    strategy: Strategy = None,
    max_tokens: MaxTokens = None,
    temperature: Annotated[float | None, typer.Option(help="From 0 to 2.")] = None,
    seed: Seed = None,
    stop: Annotated[list[str] | None, typer.Option(help="Ends the answer; repeatable.")] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="A URL or a file, for a model that sees; repeatable.")
    ] = None,
    deadline: Deadline = None,
    engine: Annotated[str | None, typer.Option(help="auto, vllm or transformers; implies --local.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Load the model in this process even if a runtime runs.")
    ] = False,
    stream: Stream = None,
    as_json: AsJson = False,
) -> None:
    """Ask one model once; works without a runtime by loading the model in this process."""
    with command(as_json, {"PARLEY_ENGINE": engine}) as cmd:
        request = request_from(
            GenerationRequest,
            prompt=question_from(prompt, prompt_option, sys.stdin),
            model_key=model,
            strategy=strategy,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            stop=tuple(stop) if stop else None,
            context={"system": system} if system else None,
            attachments=tuple(attachment_from(text) for text in image) if image else None,
            deadline_s=deadline,
        )
        streams = stream if stream is not None else cmd.output.is_terminal and not as_json
        if local or engine or find_runtime(cmd.home).condition != "running":
            with engine_noise_in(cmd.home.logs_dir / "direct.log", cmd.output):
                result = asyncio.run(_without_runtime(cmd, request, streams))
        else:
            result = _with_runtime(cmd, request, streams)
        if told := replacement_note(request, result):
            cmd.output.note(told)
        _show(cmd, result, streams)


def attachment_from(text: str) -> Attachment:
    """An image by its URL, or the content of a file; raises ValidationError naming the file."""
    if text.startswith(("http://", "https://", "data:")):
        return Attachment(type="image_url", url=text)
    try:
        return Attachment(type="image", data=base64.b64encode(Path(text).read_bytes()).decode())
    except OSError as error:
        raise ValidationError(f"--image {text!r}: {error.strerror}", param="attachments") from None


def replacement_note(request: GenerationRequest, result: GenerationResult) -> str | None:
    """What to say when another model than the named one answered; a tier names no model."""
    asked = request.model_key
    if asked is None or asked.startswith("tier:") or asked == result.model_resolved:
        return None
    why = next((a.message for a in result.attempts if a.model == asked and a.message), None)
    return f"{result.model_resolved} answered in the place of {asked}" + (f": {why}" if why else "")


def _with_runtime(cmd: Command, request: GenerationRequest, streams: bool) -> GenerationResult:
    with cmd.client() as client:
        if not streams:
            return client.inference(request)
        result: GenerationResult | None = None
        for item in client.stream_inference(request):
            result = _shown(cmd, item) or result
    return _present(result)


async def _without_runtime(cmd: Command, request: GenerationRequest, streams: bool) -> GenerationResult:
    from actors.gateway.local_gateway import local_gateway
    from registries.loader import load_catalog
    from serve_app.catalog_checks import check_generation_request

    config = local_config(cmd)
    catalog = load_catalog(config)
    check_generation_request(request, catalog)
    gateway = await local_gateway(config, catalog)
    try:
        key = gateway.resolve_model(request)
        spec = catalog.get_model(key)
        if spec.is_local:
            cmd.output.note(
                f"no runtime is used: loading {key} ({spec.location}) with {spec.engine} in this process …"
            )
        if not streams:
            return await gateway.generate(request)
        return await _relayed(cmd, gateway.stream(request))
    finally:
        await gateway.aclose()


def local_config(cmd: Command) -> Any:
    """The configuration of one call: Transformers unless somebody chose, because it loads in seconds."""
    from registries.loader import load_catalog
    from serve_app.lifecycle.compose_config import completed_config

    chosen = cmd.settings.engine
    config = cmd.settings.runtime_config(local_engine="transformers" if chosen == "auto" else chosen)
    return completed_config(config, load_catalog(config))


async def _relayed(
    cmd: Command, items: AsyncIterator[GenerationChunk | GenerationResult]
) -> GenerationResult:
    result: GenerationResult | None = None
    async with aclosing(items) as stream:  # type: ignore[type-var]
        async for item in stream:
            result = _shown(cmd, item) or result
    return _present(result)


def _shown(cmd: Command, item: GenerationChunk | GenerationResult) -> GenerationResult | None:
    """Show a chunk; hand a result on."""
    if isinstance(item, GenerationResult):
        return item
    if cmd.output.as_json:
        cmd.output.json({"type": "token", "text": item.text})
    else:
        cmd.output.words(item.text)
    return None


def _present(result: GenerationResult | None) -> GenerationResult:
    if result is None:
        raise InternalError("the stream ended without a result")
    return result


def _show(cmd: Command, result: GenerationResult, streamed: bool) -> None:
    if cmd.output.as_json:
        shown = result.model_dump(mode="json")
        cmd.output.json({"type": "result", "result": shown} if streamed else shown)
        return
    cmd.output.line("" if streamed else result.text)
    cmd.output.note(generation_facts(result), "dim")
