"""What a newcomer needs beside the answer: a warning before it, and where to go after it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pydantic

from registries.contracts.config import RuntimeConfig
from registries.contracts.runs import RunRequest
from registries.specs import ModelSpec
from serve_app.cli.command import Command
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import read_state
from serve_app.settings import LOCAL

if TYPE_CHECKING:
    from serve_app.client.catalogue import FlowDetail, ModelEntry, ModelList
    from serve_app.client.client import Client


def before_demo(cmd: Command, client: Client, request: RunRequest, demo: bool) -> None:
    """The question and flow (in the demo), and a notice when the models in use cannot answer it."""
    from flows.scope_notice import scope_notice

    listed, flow = client.models(), client.flow(request.flow_type)
    if demo:
        cmd.output.line(f"{request.flow_type}: {request.prompt}", "bold")
    notice = scope_notice(request.prompt, models_in_use(listed, flow, request.models))
    if notice:
        cmd.output.note(f"note: {notice}", "yellow")
    if demo:
        cmd.output.line()


def models_in_use(listed: ModelList, flow: FlowDetail, by_role: dict[str, str]) -> list[ModelSpec]:
    """The registry entries that the flow's nodes will ask, as far as the declaration says."""
    known = {entry.key: entry for entry in listed.models}
    keys = []
    for node in flow.spec.get("nodes", []):
        reference = (
            by_role.get(node.get("role") or node["id"]) or by_role.get(node["id"]) or node.get("model") or ""
        )
        key = (
            listed.tiers.get(reference.removeprefix("tier:")) if reference.startswith("tier:") else reference
        )
        if key in known and key not in keys:
            keys.append(key)
    return [spec for key in keys if (spec := _spec(known[key]))]


def _spec(entry: ModelEntry) -> ModelSpec | None:
    """The entry without what the API adds to it; None for one that only a newer runtime understands."""
    told = entry.model_dump(mode="json", exclude_unset=True)
    try:
        return ModelSpec.model_validate({name: told[name] for name in told if name in ModelSpec.model_fields})
    except pydantic.ValidationError:
        return None


def demo_pointers(cmd: Command, request: RunRequest) -> None:
    """A curl that works as it stands, the addresses, and how to get a bigger model."""
    from serve_app.doctor.model_servers import find_model_servers, suggestion
    from serve_app.lifecycle.compose_config import read_config

    state = read_state(cmd.home)
    api = state.api_url if state else f"http://127.0.0.1:{cmd.settings.http_port}"
    dashboard = state.dashboard_url if state else f"http://127.0.0.1:{cmd.settings.dashboard_port}"
    say = cmd.output.line
    say()
    say("the same over HTTP:", "bold")
    say(
        curl_for(
            api, key_expression(cmd.home, cmd.settings.api_key, cmd.settings.given_in_environment), request
        )
    )
    say()
    say(f"{'API':<14} {api}")
    say(f"{'API docs':<14} {api}/docs")
    say(f"{'Ray dashboard':<14} {dashboard}   (it asks for what `parley token` prints)")
    say(f"{'stop':<14} make stop   (or: parley down)")
    if only_embedded_models(read_config(cmd.home)):
        for server in find_model_servers(exclude_ports=frozenset({cmd.settings.http_port})):
            say()
            say(suggestion(server), "green")


def only_embedded_models(config: RuntimeConfig | None) -> bool:
    """Whether the runtime has nothing better: no own model, and no provider whose key it uses.

    Asked of its configuration, not of the shell, where any program's API key may lie.
    """
    return config is None or (config.default_provider == LOCAL and not config.extra_models)


def curl_for(api: str, key: str, request: RunRequest) -> str:
    """One line for a POSIX shell; ``key`` is a shell expression, so that no secret is on the screen."""
    body = {"flow_type": request.flow_type, "prompt": request.prompt}
    data = shlex.quote(json.dumps(body, ensure_ascii=True))
    return (
        f"curl -s {api}/api/orchestrate -H \"X-API-Key: {key}\" -H 'Content-Type: application/json' -d {data}"
    )


def key_expression(home: RuntimeHome, own_key: str | None, in_environment: frozenset[str]) -> str:
    """How a shell of the same user gets the key."""
    if own_key and "PARLEY_API_KEY" in in_environment:
        return "$PARLEY_API_KEY"
    file = home.effective_key_file if home.effective_key_file.exists() else home.admin_key_file
    return f"$(cat {shlex.quote(str(file))})"
