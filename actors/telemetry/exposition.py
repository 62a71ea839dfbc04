"""Prometheus text of several processes and nodes, added up into one page. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from actors.telemetry.families import FAMILIES

RAY_PREFIX = "ray_"
PASSED_ON = ("ray_serve_", "ray_vllm_")
"""Families of Ray Serve and vLLM that go along under their own names."""

PROCESS_LABELS = frozenset(
    {
        "WorkerId", "Component", "Version", "SessionName", "NodeAddress", "NodeId", "JobId", "pid",
        "otel_scope_name", "otel_scope_schema_url", "otel_scope_version",
    }
)  # fmt: skip
"""Labels that Ray adds: where a value comes from, which ``node`` says shorter."""

NODE_LABEL = "node"
"""The one label that the page adds; no family of ours has one of that name."""

_SAMPLE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?$")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
_SUFFIXES = ("_bucket", "_sum", "_count", "_total", "_created")

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Page:
    help: dict[str, str] = field(default_factory=dict)
    kind: dict[str, str] = field(default_factory=dict)
    samples: dict[str, dict[tuple[str, Labels], float]] = field(default_factory=dict)


def merged_page(pages: Mapping[str, str], failed: Iterable[str] = ()) -> str:
    """One page from a page a node (``node address → text``); ``failed`` are nodes that did not answer.

    Our families lose Ray's prefix. Equal series of one node's processes are added, or their maximum is
    taken where the family says so. Lines that are no samples are left out.
    """
    whole = _Page()
    for node, text in sorted(pages.items()):
        _read(whole, node, text)
    name = "metrics_scrape_failed"
    gone = set(failed)
    for node in sorted({*pages, *gone}):
        whole.samples.setdefault(name, {})[(name, ((NODE_LABEL, node),))] = float(node in gone)
    return _written(whole)


def _read(whole: _Page, node: str, text: str) -> None:
    kinds: dict[str, str] = {}
    helps: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = [*line.split(" ", 3), ""][:4]
            kinds[name] = kind.strip()
        elif line.startswith("# HELP "):
            _, _, name, words = [*line.split(" ", 3), ""][:4]
            helps[name] = words
        elif match := _SAMPLE.match(line):
            _take(whole, node, match, kinds, helps)


def _take(
    whole: _Page, node: str, match: re.Match[str], kinds: Mapping[str, str], helps: Mapping[str, str]
) -> None:
    raw, labels_text, value = match.group(1), match.group(2) or "", match.group(3)
    raw_family = _family_of(raw, kinds)
    name = _public_name(raw)
    family = _public_name(raw_family) if name else None
    if name is None or family is None:
        return
    kept = [(k, v) for k, v in _LABEL.findall(labels_text) if k not in PROCESS_LABELS and k != NODE_LABEL]
    labels: Labels = tuple(sorted([*kept, (NODE_LABEL, node)]))
    whole.kind.setdefault(family, kinds.get(raw_family, "untyped"))
    whole.help.setdefault(family, helps.get(raw_family, ""))
    series = whole.samples.setdefault(family, {})
    key = (name, labels)
    known = FAMILIES.get(family)
    if key not in series:
        series[key] = float(value)
    elif known is not None and known.kind == "gauge" and known.merge == "max":
        series[key] = max(series[key], float(value))
    else:
        series[key] += float(value)


def _family_of(name: str, kinds: Mapping[str, str]) -> str:
    if name in kinds:
        return name
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and name.removesuffix(suffix) in kinds:
            return name.removesuffix(suffix)
    return name


def _public_name(raw: str) -> str | None:
    """Our name of the series, Ray's for what is passed on, None for the rest."""
    ours = raw.removeprefix(RAY_PREFIX)
    base = next((ours.removesuffix(s) for s in _SUFFIXES[:3] if ours.endswith(s)), ours)
    if ours in FAMILIES or base in FAMILIES or f"{ours}_total" in FAMILIES:
        return ours
    return raw if raw.startswith(PASSED_ON) else None


def _written(whole: _Page) -> str:
    lines: list[str] = []
    for family in sorted(whole.samples):
        known = FAMILIES.get(family) or FAMILIES.get(f"{family}_total")
        lines.append(f"# HELP {family} {known.help if known else whole.help.get(family, '')}")
        lines.append(f"# TYPE {family} {known.kind if known else whole.kind.get(family, 'untyped')}")
        for (name, labels), value in sorted(whole.samples[family].items(), key=_order):
            inside = ",".join(f'{k}="{v}"' for k, v in labels)
            lines.append(f"{name}{{{inside}}} {_number(value)}")
    return "\n".join(lines) + "\n"


def _order(item: tuple[tuple[str, Labels], float]) -> tuple[str, Labels, float]:
    (name, labels), _ = item
    rest = tuple(pair for pair in labels if pair[0] != "le")
    bound = dict(labels).get("le", "0")
    return name, rest, float("inf") if bound == "+Inf" else float(bound)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
