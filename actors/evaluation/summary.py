"""From records to the figures of an evaluation; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.evaluation.records import ItemRecord
from actors.evaluation.statistics import discordance, mcnemar_exact_p, mean, quantile, wilson_interval
from registries.contracts.frozen import Frozen


class Accuracy(Frozen):
    """Right answers of scored ones, with Wilson's 95 % interval. Shares in [0, 1]."""

    right: int
    scored: int
    share: float | None
    low: float
    high: float


class Paired(Frozen):
    """Two columns of right and wrong over the same items; ``difference`` is after minus before."""

    before: str
    after: str
    items: int
    lost: int
    gained: int
    difference: float | None
    p: float
    """McNemar's exact test, two-sided."""


class ArmSummary(Frozen):
    """One row of the table. Tokens, calls and rounds are means an item; seconds are a caller's."""

    arm: str
    items: int
    errors: int
    final: Accuracy
    first: Accuracy
    change: Paired | None
    by_category: dict[str, Accuracy]
    prompt_tokens: float | None
    completion_tokens: float | None
    calls: float | None
    rounds: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None
    cost_usd: float


class Summary(Frozen):
    """All arms, and every flow against every other arm on the items that both answered."""

    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Paired, ...]


def accuracy(flags: Sequence[bool | None]) -> Accuracy:
    """Of the flags that are not None."""
    scored = [flag for flag in flags if flag is not None]
    low, high = wilson_interval(sum(scored), len(scored))
    share = sum(scored) / len(scored) if scored else None
    return Accuracy(right=sum(scored), scored=len(scored), share=share, low=low, high=high)


def paired(before: str, after: str, pairs: Sequence[tuple[bool, bool]]) -> Paired:
    """Compare two columns item by item."""
    lost, gained = discordance([b for b, _ in pairs], [a for _, a in pairs])
    return Paired(
        before=before,
        after=after,
        items=len(pairs),
        lost=lost,
        gained=gained,
        difference=(gained - lost) / len(pairs) if pairs else None,
        p=mcnemar_exact_p(lost, gained),
    )


def summarise_arm(arm: str, records: Sequence[ItemRecord]) -> ArmSummary:
    """The row of one arm. Items that failed count as wrong, and are left out of tokens and latencies."""
    answered = [record for record in records if record.error is None]
    changes = [
        (record.first_correct, record.final_correct)
        for record in answered
        if record.first_correct is not None and record.final_correct is not None
    ]
    latencies = [record.latency_s for record in answered]
    categories = sorted({record.category for record in records if record.category is not None})
    return ArmSummary(
        arm=arm,
        items=len(records),
        errors=len(records) - len(answered),
        final=accuracy([record.final_correct for record in records]),
        first=accuracy([record.first_correct for record in answered]),
        change=paired("first", "final", changes) if changes and not arm.startswith("model:") else None,
        by_category={c: accuracy([r.final_correct for r in records if r.category == c]) for c in categories},
        prompt_tokens=mean([record.prompt_tokens for record in answered]),
        completion_tokens=mean([record.completion_tokens for record in answered]),
        calls=mean([record.calls for record in answered]),
        rounds=mean([record.rounds for record in answered]),
        latency_p50_s=quantile(latencies, 0.5),
        latency_p95_s=quantile(latencies, 0.95),
        cost_usd=sum(record.cost_micro_usd for record in records) / 1_000_000,
    )


def compare(before: str, after: str, records: Mapping[str, Sequence[ItemRecord]]) -> Paired:
    """Two arms' final answers on the items that both have answered."""
    known = {
        r.id: r.final_correct for r in records[before] if r.error is None and r.final_correct is not None
    }
    pairs = [
        (known[record.id], record.final_correct)
        for record in records[after]
        if record.error is None and record.final_correct is not None and record.id in known
    ]
    return paired(before, after, pairs)


def summarise(records: Mapping[str, Sequence[ItemRecord]]) -> Summary:
    """Arms in the given order; a comparison for every flow with every arm that is not itself."""
    flows = [arm for arm in records if arm.startswith("flow:")]
    others = [arm for arm in records if not arm.startswith("flow:")]
    against = [(other, flow) for flow in flows for other in others]
    against += [(a, b) for i, a in enumerate(flows) for b in flows[i + 1 :]]
    return Summary(
        arms=tuple(summarise_arm(arm, rows) for arm, rows in records.items()),
        comparisons=tuple(compare(before, after, records) for before, after in against),
    )
