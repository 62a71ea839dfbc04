"""`parley status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from serve_app.cli.command import Command, command
from serve_app.cli.exit_codes import ExitCode
from serve_app.cli.options import AsJson
from serve_app.lifecycle.find_runtime import find_runtime
from serve_app.lifecycle.runtime_state import RuntimeState

if TYPE_CHECKING:
    from serve_app.client.answers import Readiness


def status(as_json: AsJson = False) -> None:
    """Say whether the runtime runs, where, and what is loaded."""
    with command(as_json) as cmd:
        found = find_runtime(cmd.home)
        if found.condition != "running" or found.state is None:
            raise typer.Exit(_not_running(cmd, stale=found.condition == "stale"))
        from serve_app.lifecycle.await_ready import probe_with

        with cmd.client() as client:
            readiness = probe_with(lambda: client.ready(timeout_s=5.0))()
        _show(cmd, found.state, readiness)


def _not_running(cmd: Command, stale: bool) -> ExitCode:
    if cmd.output.as_json:
        cmd.output.json({"status": "crashed" if stale else "not_running"})
    elif stale:
        cmd.output.line(
            "crashed: parts of a runtime are left. parley up cleans up and starts; parley down cleans up"
        )
    else:
        cmd.output.line("not running. Start it with: parley up")
    return ExitCode.NOT_RUNNING


def _show(cmd: Command, state: RuntimeState, readiness: Readiness | None) -> None:
    word = readiness.status if readiness else "starting"
    facts: dict[str, Any] = {
        "status": word,
        "api": state.api_url,
        "docs": f"{state.api_url}/docs",
        "dashboard": state.dashboard_url,
        "uptime_s": round(max(0.0, time.time() - state.started_at), 1),
        "instance": state.instance,
        "home": str(cmd.home.path),
        "ray_logs": f"{state.ray_dir}/session_latest/logs",
        "parts": {name: part.model_dump() for name, part in readiness.parts.items()} if readiness else {},
    }
    if cmd.output.as_json:
        cmd.output.json(facts)
        return
    labels = (
        ("status", "status"),
        ("API", "api"),
        ("API docs", "docs"),
        ("Ray dashboard", "dashboard"),
        ("home", "home"),
        ("Ray logs", "ray_logs"),
    )
    for label, name in labels:
        cmd.output.line(f"{label:<14} {facts[name]}")
    cmd.output.line(f"{'up for':<14} {facts['uptime_s']:.0f} s")
    for name, part in facts["parts"].items():
        reason = f"  ({part['reason']})" if part.get("reason") else ""
        cmd.output.line(f"{name:<14} {part['state']}{reason}")
