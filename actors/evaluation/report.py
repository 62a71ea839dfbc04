"""A summary as Markdown tables, for people; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.evaluation.summary import Accuracy, ArmSummary, Paired, Summary


def render(summary: Summary, title: str, facts: Mapping[str, str]) -> str:
    """The page: facts, the arms, what deliberation changed, arm against arm, categories."""
    parts = [f"# {title}", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    parts += ["## Arms", "", *_arms(summary.arms), ""]
    parts += [
        "Accuracy with Wilson's 95 % interval; items that failed count as wrong. Tokens (prompt + "
        "completion), calls and rounds are means an item; latency is what the caller waited, "
        "at this concurrency.",
        "",
    ]
    changes = [(arm.arm, arm.change) for arm in summary.arms if arm.change is not None]
    if changes:
        parts += ["## First answer against final answer", "", *_changes(changes, summary.arms), ""]
    if summary.comparisons:
        parts += ["## Arm against arm", "", *_comparisons(summary.comparisons), ""]
    categories = sorted({category for arm in summary.arms for category in arm.by_category})
    if categories:
        parts += ["## Accuracy by category", "", *_categories(categories, summary.arms), ""]
    return "\n".join(parts)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first column is text, the others are numbers."""
    rule = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def _arms(arms: Sequence[ArmSummary]) -> list[str]:
    header = (
        "arm",
        "items",
        "errors",
        "accuracy",
        "first answer",
        "tokens",
        "calls",
        "rounds",
        "p50",
        "p95",
        "cost",
    )
    return table(header, [_arm(arm) for arm in arms])


def _arm(arm: ArmSummary) -> list[str]:
    first = "–" if arm.arm.startswith("model:") else _accuracy(arm.first)
    return [
        arm.arm,
        str(arm.items),
        str(arm.errors),
        _accuracy(arm.final),
        first,
        _tokens(arm.prompt_tokens, arm.completion_tokens),
        _number(arm.calls, 1),
        _number(arm.rounds, 1),
        _seconds(arm.latency_p50_s),
        _seconds(arm.latency_p95_s),
        f"${arm.cost_usd:.4f}",
    ]


def _changes(changes: Sequence[tuple[str, Paired]], arms: Sequence[ArmSummary]) -> list[str]:
    by_name = {arm.arm: arm for arm in arms}
    header = ("arm", "first", "final", "difference", "wrong → right", "right → wrong", "McNemar p")
    rows = [
        [
            name,
            _accuracy(by_name[name].first),
            _accuracy(by_name[name].final),
            _points(change.difference),
            str(change.gained),
            str(change.lost),
            _p(change.p),
        ]
        for name, change in changes
    ]
    return table(header, rows)


def _comparisons(comparisons: Sequence[Paired]) -> list[str]:
    header = (
        "arm",
        "against",
        "items",
        "difference",
        "only the arm right",
        "only the other right",
        "McNemar p",
    )
    rows = [
        [c.after, c.before, str(c.items), _points(c.difference), str(c.gained), str(c.lost), _p(c.p)]
        for c in comparisons
    ]
    return table(header, rows)


def _categories(categories: Sequence[str], arms: Sequence[ArmSummary]) -> list[str]:
    rows = [
        [arm.arm, *(_accuracy(arm.by_category[c]) if c in arm.by_category else "–" for c in categories)]
        for arm in arms
    ]
    return table(("arm", *categories), rows)


def _accuracy(value: Accuracy) -> str:
    if value.share is None:
        return "–"
    return f"{100 * value.share:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def _points(difference: float | None) -> str:
    return "–" if difference is None else f"{100 * difference:+.1f} points"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _tokens(prompt: float | None, completion: float | None) -> str:
    if prompt is None or completion is None:
        return "–"
    return f"{prompt + completion:.0f} ({prompt:.0f} + {completion:.0f})"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f} s"
