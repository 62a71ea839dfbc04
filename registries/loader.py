"""YAML and configuration become a Catalog; whatever is wrong is said all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pydantic

from registries.catalog import Catalog
from registries.catalog_files import RawEntry, read_catalog_files
from registries.configured_models import (
    LOCAL_ENGINE_CHOICES,
    configured_model,
    configured_tiers,
    preferred_models,
)
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from registries.contracts.frozen import Frozen
from registries.flow_references import KnownNames, reference_problems
from registries.specs import FlowSpec, ModelSpec, PromptSpec, StrategySpec

Spec = TypeVar("Spec", ModelSpec, StrategySpec, PromptSpec, FlowSpec)
_SETTINGS = "settings"
_SHOWN_CHARS = 80


@dataclass(slots=True)
class _Shelf:
    """The entries of one section by name, where each was written, and names whose entry is broken."""

    items: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, tuple[str, int]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def names(self) -> set[str]:
        """Names that may be referred to; a broken entry is reported once, not at each mention."""
        return set(self.items) | self.broken


def load_catalog(config: RuntimeConfig | None = None) -> Catalog:
    """Package data, then ``config.catalog_dirs`` (a later folder replaces entries), then ``extra_models``.

    Raises ValidationError whose message lists every bad value and dangling reference with file and key
    (``context["problems"]`` has them one by one).
    """
    config = config or RuntimeConfig(home="")
    raw = read_catalog_files(config.catalog_dirs)
    problems = list(raw.problems)
    entries = [*raw.entries, *_extra_entries(config)]
    models = _shelf(ModelSpec, "models", entries, problems, lambda spec: spec.key)
    strategies = _shelf(StrategySpec, "strategies", entries, problems, lambda spec: spec.name)
    prompts = _shelf(PromptSpec, "prompts", entries, problems, lambda spec: spec.id)
    flows = _shelf(FlowSpec, "flows", entries, problems, lambda spec: spec.name)
    models.items = {key: configured_model(spec, config) for key, spec in models.items.items()}
    tiers = _tiers(entries, models, config, problems)
    known = KnownNames(
        models=models.names(),
        tiers=tiers,
        strategies=strategies.names(),
        prompts=prompts.names(),
    )
    problems.extend(_dangling(models, strategies, known))
    problems.extend(_dangling_in_broken(entries, models, known))
    problems.extend(_dangling_in_flows(flows, known))
    problems.extend(_setting_problems(config, tiers, known))
    if problems:
        raise _all_of(problems)
    return Catalog(
        models.items.values(), strategies.items.values(), prompts.items.values(), flows.items.values(), tiers
    )


def _extra_entries(config: RuntimeConfig) -> list[RawEntry]:
    layer = len(config.catalog_dirs) + 1
    return [
        RawEntry("models", _SETTINGS, f"extra_models[{at}]", value, layer)
        for at, value in enumerate(config.extra_models)
    ]


def _shelf(
    spec_type: type[Spec],
    section: str,
    entries: Iterable[RawEntry],
    problems: list[str],
    name_of: Callable[[Spec], str],
) -> _Shelf:
    shelf = _Shelf()
    for entry in entries:
        if entry.section != section:
            continue
        spec = _parsed(spec_type, entry, problems)
        if spec is None:
            shelf.broken.add(_claimed_name(entry.value))
            continue
        name = name_of(spec)
        earlier = shelf.origin.get(name)
        if earlier and earlier[1] == entry.layer:
            problems.append(f"{_place(entry)}: {name!r} is declared twice (also in {earlier[0]})")
            continue
        shelf.items[name] = spec
        shelf.origin[name] = (_place(entry), entry.layer)
    return shelf


def _parsed(spec_type: type[Spec], entry: RawEntry, problems: list[str]) -> Spec | None:
    if not isinstance(entry.value, dict):
        problems.append(f"{_place(entry)}: must be a mapping, got {_shown(entry.value)}")
        return None
    try:
        return spec_type.model_validate(entry.value)
    except pydantic.ValidationError as error:
        name = _claimed_name(entry.value)
        where = f"{_place(entry)}{f' ({name})' if name else ''}"
        problems.extend(f"{where}: {_sentence(fault, spec_type)}" for fault in error.errors())
        return None


def _sentence(fault: Any, spec_type: type[Frozen]) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "unknown field"
        if len(fault["loc"]) == 1:
            message += f"; allowed: {', '.join(spec_type.model_fields)}"
    elif fault["type"] not in ("missing", "value_error"):
        message = f"{message}, got {_shown(fault['input'])}"
    return f"{path}: {message}" if path else message


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def _claimed_name(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    return next((str(value[key]) for key in ("key", "name", "id") if key in value), "")


def _place(entry: RawEntry) -> str:
    return f"{entry.file}: {entry.key}" if entry.key else entry.file


def _tiers(
    entries: Iterable[RawEntry], models: _Shelf, config: RuntimeConfig, problems: list[str]
) -> dict[str, str]:
    declared: dict[str, str] = {}
    explicit: dict[str, str] = {}
    for entry in entries:
        if entry.section != "tiers":
            continue
        if not isinstance(entry.value, dict):
            problems.append(f"{_place(entry)}: must map a tier to a model key, got {_shown(entry.value)}")
            continue
        for tier, key in entry.value.items():
            if key not in models.names():
                problems.append(
                    f"{_place(entry)}.{tier}: unknown model {key!r}. Known: {_list(models.names())}"
                )
        pairs = {str(tier): str(key) for tier, key in entry.value.items()}
        declared |= pairs
        explicit |= pairs if entry.layer else {}
    extra = [spec for key, spec in models.items.items() if models.origin[key][0].startswith(f"{_SETTINGS}: ")]
    preferred = preferred_models(list(models.items.values()), extra, config)
    return configured_tiers(declared, preferred, config) | explicit | dict(config.tiers)


def _dangling(models: _Shelf, strategies: _Shelf, known: KnownNames) -> Iterable[str]:
    for key, model in models.items.items():
        if model.default_strategy not in known.strategies:
            yield (
                f"{models.origin[key][0]} ({key}): default_strategy: unknown strategy "
                f"{model.default_strategy!r}. Known: {_list(known.strategies)}"
            )
    for name, strategy in strategies.items.items():
        for at, key in enumerate(strategy.fallbacks):
            if key not in known.models:
                place = strategies.origin[name][0]
                allowed = _list(known.models)
                yield f"{place} ({name}): fallbacks[{at}]: unknown model {key!r}. Known: {allowed}"


def _dangling_in_broken(entries: Iterable[RawEntry], models: _Shelf, known: KnownNames) -> Iterable[str]:
    """Unknown strategies of entries that have other faults too, so that one reading tells all."""
    for entry in entries:
        name = _claimed_name(entry.value)
        if entry.section != "models" or name not in models.broken or not isinstance(entry.value, dict):
            continue
        asked = entry.value.get("default_strategy")
        if isinstance(asked, str) and asked not in known.strategies and name not in models.items:
            allowed = _list(known.strategies)
            yield f"{_place(entry)} ({name}): default_strategy: unknown strategy {asked!r}. Known: {allowed}"


def _dangling_in_flows(flows: _Shelf, known: KnownNames) -> Iterable[str]:
    for name, flow in flows.items.items():
        for problem in reference_problems(flow, known):
            yield f"{flows.origin[name][0]} ({name}): {problem.field}: {problem.message}"


def _setting_problems(config: RuntimeConfig, tiers: Mapping[str, str], known: KnownNames) -> Iterable[str]:
    if config.local_engine not in LOCAL_ENGINE_CHOICES:
        allowed = ", ".join(LOCAL_ENGINE_CHOICES)
        yield f"{_SETTINGS}: local_engine: {config.local_engine!r}; allowed: {allowed}"
    if config.default_strategy not in known.strategies:
        yield (
            f"{_SETTINGS}: default_strategy: unknown strategy {config.default_strategy!r}. "
            f"Known: {_list(known.strategies)}"
        )
    for tier in config.tiers:
        if tiers[tier] not in known.models:
            yield f"{_SETTINGS}: tiers.{tier}: unknown model {tiers[tier]!r}. Known: {_list(known.models)}"
    for at, key in enumerate(config.models):
        if key not in known.models:
            yield f"{_SETTINGS}: models[{at}]: unknown model {key!r}. Known: {_list(known.models)}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(name for name in names if name)) or "none"


def _all_of(problems: list[str]) -> ValidationError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = "\n".join(f"  - {problem}" for problem in problems)
    first = problems[0].split(": ", 1)[0]
    return ValidationError(f"the catalog has {count}:\n{lines}", first, None, {"problems": problems})
