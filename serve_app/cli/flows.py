"""`parley flows`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.command import Command, command
from serve_app.cli.options import AsJson
from serve_app.cli.table import show_table
from serve_app.lifecycle.find_runtime import find_runtime

if TYPE_CHECKING:
    from serve_app.client.catalogue import FlowDetail, FlowList


def flows(
    name: Annotated[str | None, typer.Argument(help="One flow, in full.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the registered flows, or show one in full."""
    with command(as_json) as cmd:
        running = find_runtime(cmd.home).condition == "running"
        if name is not None:
            _show_one(cmd, _one_from_runtime(cmd, name) if running else _one_from_files(cmd, name))
            return
        listed = _from_runtime(cmd) if running else _from_files(cmd)
        if as_json:
            cmd.output.json(listed.model_dump(mode="json", exclude_unset=True))
            return
        rows = [(flow.name, ", ".join(flow.roles), flow.description) for flow in listed.flows]
        show_table(cmd.output, ("FLOW", "ROLES", "WHAT IT DOES"), rows)


def _from_runtime(cmd: Command) -> FlowList:
    with cmd.client() as client:
        return client.flows()


def _one_from_runtime(cmd: Command, name: str) -> FlowDetail:
    with cmd.client() as client:
        return client.flow(name)


def _from_files(cmd: Command) -> FlowList:
    from registries.loader import load_catalog
    from serve_app.client.catalogue import FlowList
    from serve_app.routes.catalogue import flow_summary

    catalog = load_catalog(cmd.settings.runtime_config())
    known = sorted(catalog.flows, key=lambda f: f.name)
    return FlowList.model_validate({"flows": [flow_summary(flow).model_dump(mode="json") for flow in known]})


def _one_from_files(cmd: Command, name: str) -> FlowDetail:
    from registries.loader import load_catalog
    from serve_app.client.catalogue import FlowDetail
    from serve_app.routes.catalogue import flow_summary

    flow = load_catalog(cmd.settings.runtime_config()).flows.get(name)
    summary = flow_summary(flow).model_dump(mode="json")
    return FlowDetail.model_validate({**summary, "spec": flow.model_dump(mode="json")})


def _show_one(cmd: Command, flow: FlowDetail) -> None:
    if cmd.output.as_json:
        cmd.output.json(flow.model_dump(mode="json", exclude_unset=True))
        return
    import yaml

    cmd.output.line(yaml.safe_dump(flow.spec, sort_keys=False, allow_unicode=True).rstrip())
    if flow.mermaid:
        cmd.output.line()
        cmd.output.line(flow.mermaid.rstrip())
