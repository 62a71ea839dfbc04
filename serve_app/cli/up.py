"""`parley up`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from registries.contracts.errors import InternalError, ParleyError
from serve_app.cli.command import Command, command
from serve_app.cli.exit_codes import ExitCode
from serve_app.cli.options import AsJson


def up(
    model: Annotated[
        str | None, typer.Option(help="A Hugging Face id or a folder, used instead of the embedded models.")
    ] = None,
    model_url: Annotated[
        str | None, typer.Option("--model-url", help="An OpenAI-compatible URL that serves --model.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="auto, vllm or transformers.")] = None,
    port: Annotated[int | None, typer.Option(help="The port of the HTTP API.")] = None,
    dashboard_port: Annotated[
        int | None, typer.Option("--dashboard-port", help="The port of the Ray dashboard.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until everything is loaded.")] = True,
    timeout: Annotated[float, typer.Option(help="Most seconds to wait.", min=1)] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Start the runtime on this machine in the background, or find the one that runs."""
    flags = {
        "PARLEY_MODEL": model,
        "PARLEY_MODEL_URL": model_url,
        "PARLEY_ENGINE": engine,
        "PORT": port,
        "PARLEY_DASHBOARD_PORT": dashboard_port,
    }
    with command(as_json, flags) as cmd:
        code = _up(cmd, _insisted(flags), wait, timeout)
        raise typer.Exit(code)


_EXITS = {"ready": ExitCode.OK, "loading": ExitCode.OK, "interrupted": ExitCode.INTERRUPTED}
_FIELDS = {
    "PARLEY_MODEL": "extra_models",
    "PARLEY_MODEL_URL": "extra_models",
    "PARLEY_ENGINE": "local_engine",
    "PORT": "http_port",
    "PARLEY_DASHBOARD_PORT": "dashboard_port",
}


def _insisted(flags: dict[str, Any]) -> frozenset[str]:
    return frozenset(_FIELDS[name] for name, value in flags.items() if value is not None)


def _up(cmd: Command, insisted: frozenset[str], wait: bool, timeout_s: float) -> ExitCode:
    from serve_app.lifecycle.start_runtime import start_runtime

    with cmd.output.progress() as progress:
        try:
            report = start_runtime(cmd.settings, cmd.home, progress, insisted=insisted)
        except InternalError as error:
            cmd.output.error(error.message)
            return ExitCode.LIFECYCLE
        if not report.fresh:
            progress.say(f"the runtime is running already, at {report.state.api_url}")
        if report.changed:
            progress.say(
                f"settings changed since it started ({', '.join(report.changed)}); "
                "to apply them: parley down, parley up"
            )
        status, failed = _await(cmd, report.state, progress, timeout_s) if wait else ("loading", [])
    _show(cmd, report.state, report.fresh, status, failed)
    return _EXITS.get(status, ExitCode.LIFECYCLE)


def _await(cmd: Command, state: Any, progress: Any, timeout_s: float) -> tuple[str, list[str]]:
    """The state when waiting ended, and what failed."""
    from serve_app.lifecycle.await_ready import DeploymentWatch, await_ready, failures, probe_with
    from serve_app.lifecycle.stop_runtime import stop_runtime

    with cmd.client() as client:
        try:
            outcome, report = await_ready(
                probe_with(lambda: client.ready(timeout_s=5.0)),
                DeploymentWatch(cmd.home, state),
                progress,
                timeout_s=timeout_s,
            )
        except ParleyError as error:
            stop_runtime(cmd.home, progress)
            return "failed", [error.message, "everything that was started has been ended again"]
        except KeyboardInterrupt:
            return "interrupted", ["interrupted; the runtime goes on loading: parley status, parley down"]
    if outcome == "late":
        return "late", [
            f"not everything was loaded within {timeout_s:g} s; it goes on loading: parley status"
        ]
    return outcome, failures(report)


def _show(cmd: Command, state: Any, fresh: bool, status: str, failed: list[str]) -> None:
    facts = {
        "status": status,
        "fresh": fresh,
        "api": state.api_url,
        "docs": f"{state.api_url}/docs",
        "dashboard": state.dashboard_url,
        "instance": state.instance,
        "failed": failed,
    }
    for line in failed:
        cmd.output.error(line)
    if cmd.output.as_json:
        cmd.output.json(facts)
        return
    if status == "failed":
        return
    for label, name in (("API", "api"), ("API docs", "docs"), ("Ray dashboard", "dashboard")):
        cmd.output.line(f"{label:<14} {facts[name]}")
