"""`parley doctor`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from serve_app.cli.command import command
from serve_app.cli.exit_codes import ExitCode
from serve_app.cli.options import AsJson

_SIGNS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "missing": ("MISSING", "bold red")}


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine lacks, in words."""
    with command(as_json) as cmd:
        from serve_app.doctor.machine_checks import machine_checks

        checks = list(machine_checks(cmd.settings, cmd.home))
        missing = [check for check in checks if check.verdict == "missing"]
        if as_json:
            cmd.output.json({"ok": not missing, "checks": [asdict(check) for check in checks]})
        else:
            for check in checks:
                sign, style = _SIGNS[check.verdict]
                cmd.output.line(
                    f"{sign:<8} {check.name:<14} {check.detail}", style if check.verdict != "ok" else ""
                )
                if check.advice and check.verdict != "ok":
                    cmd.output.line(f"{'':<8} {'':<14} -> {check.advice}")
            cmd.output.line()
            cmd.output.line("this machine is ready" if not missing else f"{len(missing)} thing(s) missing")
        raise typer.Exit(ExitCode.FAILED if missing else ExitCode.OK)
