"""`parley stats`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.command import command
from serve_app.cli.options import AsJson
from serve_app.cli.output import Output
from serve_app.cli.table import show_table

if TYPE_CHECKING:
    from serve_app.client.answers import HealthScore
    from serve_app.client.statistics import CallFigures, Figures, RunFigures, Spread

    Part = tuple[str, int, Figures]


def stats(
    hours: Annotated[float, typer.Option(help="How far back.", min=0)] = 24.0,
    user: Annotated[str | None, typer.Option(help="Of one user.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what ran lately: success, time, tokens, cost, ratings, and the runtime's health."""
    with command(as_json) as cmd, cmd.client() as client:
        figures, health = client.stats(hours, user), client.health_score()
        if as_json:
            told = figures.model_dump(mode="json", exclude_unset=True)
            cmd.output.json({**told, "health": health.model_dump(mode="json")})
            return
        _show_totals(cmd.output, figures.totals, hours)
        _show_table(cmd.output, "FLOW", "RUNS", _runs(figures.by_flow))
        _show_table(cmd.output, "MODEL", "CALLS", _calls(figures.by_model))
        _show_table(cmd.output, "PROVIDER", "CALLS", _calls(figures.by_provider))
        _show_table(cmd.output, "USER", "RUNS", _runs(figures.by_user))
        _show_health(cmd.output, health)


def _show_totals(output: Output, totals: RunFigures, hours: float) -> None:
    states = ", ".join(f"{count} {status}" for status, count in totals.by_status.items() if count)
    output.line(f"{'runs':<12} {totals.runs} in {hours:g} h{': ' + states if states else ''}", "bold")
    output.line(f"{'success':<12} {_share(totals.success_rate)}")
    output.line(f"{'time':<12} {_times(totals.latency_s)}")
    output.line(f"{'tokens':<12} {_tokens(totals)}")
    output.line(f"{'cost':<12} ${totals.cost_usd:.6f}")
    output.line(f"{'cache hits':<12} {totals.cache_hits}")
    if totals.satisfaction.avg is not None:
        rated = totals.satisfaction
        output.line(f"{'rated':<12} {rated.avg:.2f} on average, {rated.count} times")
    for code, count in totals.errors.items():
        output.line(f"{'error':<12} {code}: {count}", "red")


def _runs(parts: Mapping[str, RunFigures]) -> list[Part]:
    return [(name, part.runs, part) for name, part in parts.items()]


def _calls(parts: Mapping[str, CallFigures]) -> list[Part]:
    return [(name, part.calls, part) for name, part in parts.items()]


def _show_table(output: Output, heading: str, counted: str, parts: list[Part]) -> None:
    if not parts:
        return
    rows = [
        (
            name,
            str(count),
            _share(part.success_rate),
            _seconds(part.latency_s.p50),
            _seconds(part.latency_s.p95),
            _tokens(part),
            f"${part.cost_usd:.6f}",
            ", ".join(f"{code} {count}" for code, count in part.errors.items()),
        )
        for name, count, part in parts
    ]
    output.line()
    show_table(output, (heading, counted, "SUCCESS", "P50", "P95", "TOKENS", "COST", "ERRORS"), rows)


def _show_health(output: Output, health: HealthScore) -> None:
    output.line()
    output.line(f"{'health':<12} {health.score:.2f}", "bold")
    for name, part in health.parts.items():
        output.line(f"  {name:<16} {part.score:.2f}  {part.why}".rstrip())


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _times(latency: Spread) -> str:
    named = {
        "avg": latency.avg,
        "min": latency.min,
        "max": latency.max,
        "p50": latency.p50,
        "p95": latency.p95,
    }
    return ", ".join(f"{name} {_seconds(value)}" for name, value in named.items()) if latency.count else "-"


def _tokens(part: Figures) -> str:
    return f"{part.tokens.prompt} in, {part.tokens.completion} out"
