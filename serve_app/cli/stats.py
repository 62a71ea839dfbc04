"""`parley stats`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serve_app.cli.command import command
from serve_app.cli.options import AsJson
from serve_app.cli.output import Output
from serve_app.cli.table import show_table

if TYPE_CHECKING:
    from serve_app.client.answers import HealthScore

_TABLES = (
    ("by_flow", "FLOW", "runs"),
    ("by_model", "MODEL", "calls"),
    ("by_provider", "PROVIDER", "calls"),
    ("by_user", "USER", "runs"),
)


def stats(
    hours: Annotated[float, typer.Option(help="How far back.", min=0)] = 24.0,
    user: Annotated[str | None, typer.Option(help="Of one user.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what ran lately: success, time, tokens, cost, ratings, and the runtime's health."""
    with command(as_json) as cmd, cmd.client() as client:
        figures, health = client.stats(hours, user), client.health_score()
        if as_json:
            cmd.output.json({**figures, "health": health.model_dump(mode="json")})
            return
        _show_totals(cmd.output, figures.get("totals") or {}, hours)
        for name, heading, counted in _TABLES:
            if figures.get(name):
                cmd.output.line()
                _show_table(cmd.output, heading, counted, figures[name])
        _show_health(cmd.output, health)


def _show_totals(output: Output, totals: Mapping[str, Any], hours: float) -> None:
    by_status = totals.get("by_status") or {}
    states = ", ".join(f"{count} {status}" for status, count in by_status.items() if count)
    output.line(
        f"{'runs':<12} {totals.get('runs', 0)} in {hours:g} h{': ' + states if states else ''}", "bold"
    )
    output.line(f"{'success':<12} {_share(totals.get('success_rate'))}")
    output.line(f"{'time':<12} {_times(totals.get('latency_s') or {})}")
    output.line(f"{'tokens':<12} {_tokens(totals)}")
    output.line(f"{'cost':<12} ${totals.get('cost_usd') or 0:.6f}")
    output.line(f"{'cache hits':<12} {totals.get('cache_hits', 0)}")
    satisfaction = totals.get("satisfaction") or {}
    if satisfaction.get("count"):
        output.line(f"{'rated':<12} {satisfaction['avg']:.2f} on average, {satisfaction['count']} times")
    for code, count in (totals.get("errors") or {}).items():
        output.line(f"{'error':<12} {code}: {count}", "red")


def _show_table(output: Output, heading: str, counted: str, parts: Mapping[str, Any]) -> None:
    rows = []
    for name, part in parts.items():
        latency = part.get("latency_s") or {}
        rows.append(
            (
                name,
                str(part.get(counted, 0)),
                _share(part.get("success_rate")),
                _seconds(latency.get("p50")),
                _seconds(latency.get("p95")),
                _tokens(part),
                f"${part.get('cost_usd') or 0:.6f}",
                ", ".join(f"{code} {count}" for code, count in (part.get("errors") or {}).items()),
            )
        )
    show_table(output, (heading, counted.upper(), "SUCCESS", "P50", "P95", "TOKENS", "COST", "ERRORS"), rows)


def _show_health(output: Output, health: HealthScore) -> None:
    output.line()
    output.line(f"{'health':<12} {health.score:.2f}", "bold")
    for name, part in health.parts.items():
        output.line(f"  {name:<16} {part.score:.2f}  {part.why}".rstrip())


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _times(latency: Mapping[str, Any]) -> str:
    named = ", ".join(f"{name} {_seconds(latency.get(name))}" for name in ("avg", "min", "max", "p50", "p95"))
    return named if latency.get("count") else "-"


def _tokens(part: Mapping[str, Any]) -> str:
    tokens = part.get("tokens") or {}
    return f"{tokens.get('prompt', 0)} in, {tokens.get('completion', 0)} out"
