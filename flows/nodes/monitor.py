"""monitor: is the GPU memory there that the watched node's model needs? Skipped where none is needed."""

from __future__ import annotations

from flows.node_context import NodeContext, NodeOutcome
from registries.contracts.generation import GenerationRequest
from registries.specs import ModelSpec


async def monitor(context: NodeContext) -> NodeOutcome:
    """``params.watch`` names the node whose model is meant. Signal ``fits`` says that the memory suffices.

    With a GPU, ``data.available_vram_gb`` limits the choice of a model that the flow left to the gateway.
    """
    model = _watched_model(context)
    if model.min_vram_gb <= 0:
        return NodeOutcome(
            data={"reason": f"{model.key} needs no GPU memory", "signals": ["fits"]}, skipped=True
        )
    vram = await context.ports.resources.vram()
    available = vram.get("available_gb")
    usable = min(float(available), float(vram["limit_gb"])) if available is not None else 0.0
    fits = usable >= model.min_vram_gb
    text = f"{model.key} needs {model.min_vram_gb:g} GB of GPU memory; {usable:g} GB can be used."
    data = {"vram": dict(vram), "model": model.key, "signals": ["fits"] if fits else []}
    return NodeOutcome(text, {**data, "available_vram_gb": usable} if available is not None else data)


def _watched_model(context: NodeContext) -> ModelSpec:
    task = context.task
    key = task.model or context.ports.generator.resolve_model(
        GenerationRequest(prompt=task.question, strategy=task.strategy, task_type=task.task_type)
    )
    return context.catalog.get_model(key)
