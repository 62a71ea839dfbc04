"""Data sets as JSON lines: ``id``, ``input``, ``target``, ``metadata`` (names of Inspect's ``Sample``)."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pydantic
from pydantic import Field, field_validator

from registries.contracts.errors import ValidationError
from registries.contracts.frozen import Frozen
from registries.contracts.generation import MAX_PROMPT_CHARS

MAX_PROBLEMS_SHOWN = 50


class Sample(Frozen):
    """One question. ``target`` is the right answer or several that count as right; None is not scored."""

    id: str = Field(min_length=1, max_length=200)
    input: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS)
    target: str | tuple[str, ...] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("id", mode="before")
    @classmethod
    def _number_as_text(cls, value: object) -> object:
        return _as_text(value)

    @field_validator("target", mode="before")
    @classmethod
    def _numbers_as_text(cls, value: object) -> object:
        return [_as_text(each) for each in value] if isinstance(value, list) else _as_text(value)

    @field_validator("input")
    @classmethod
    def _asks_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value

    @property
    def targets(self) -> tuple[str, ...]:
        """Every answer that counts as right."""
        if self.target is None:
            return ()
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def category(self) -> str | None:
        """``metadata.category``, by which the summary is also broken down."""
        value = self.metadata.get("category")
        return None if value is None else str(value)


def find_dataset(given: Path, here: Path) -> Path:
    """The file ``given``, relative to ``here``, or the data set of this name that the package carries.

    Raises ValidationError naming the data sets there are when it is neither.
    """
    path = here / given
    if path.exists():
        return path
    carried = {Path(each.name).stem: each for each in _carried().iterdir() if each.name.endswith(".jsonl")}
    if str(given) not in carried:
        names = ", ".join(sorted(carried))
        raise ValidationError(
            f"dataset {given}: there is no file {path}, and the data sets of the package are: {names}",
            param="dataset",
        )
    return Path(str(carried[str(given)]))


def _carried() -> Traversable:
    return importlib.resources.files("registries").joinpath("data", "datasets")


def load_dataset(path: Path, limit: int | None = None) -> list[Sample]:
    """Read the whole file, then cut it to the first ``limit`` samples.

    Blank lines are skipped. Raises ValidationError naming every bad line (number, key, what is wrong).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValidationError(f"dataset {path}: cannot be read: {error.strerror}", param="dataset") from error
    samples: list[Sample] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        sample, found = _read_line(number, line)
        problems += found
        if sample is None:
            continue
        if sample.id in first_line:
            problems.append(f"line {number}, id: {sample.id!r} is already on line {first_line[sample.id]}")
        first_line.setdefault(sample.id, number)
        samples.append(sample)
    if problems:
        raise ValidationError(_report(path, problems), param="dataset")
    if not samples:
        raise ValidationError(
            f"dataset {path}: holds no samples; one JSON object a line is needed", param="dataset"
        )
    return samples[:limit]


def digest_of_samples(samples: Iterable[Sample]) -> dict[str, str]:
    """Per sample id a short hash of what is asked and what is right, to notice a changed data set."""
    return {sample.id: _digest(sample) for sample in samples}


def _digest(sample: Sample) -> str:
    asked = json.dumps([sample.input, sample.targets], ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:12]


def _read_line(number: int, line: bytes) -> tuple[Sample | None, list[str]]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return None, [f"line {number}: not UTF-8 (byte {error.start})"]
    except json.JSONDecodeError as error:
        return None, [f"line {number}: not JSON: {error.msg} at column {error.colno}"]
    except RecursionError:
        return None, [f"line {number}: not JSON that can be read: nested too deeply"]
    if not isinstance(row, dict):
        return None, [f"line {number}: a JSON object is needed, not {type(row).__name__}"]
    try:
        return Sample.model_validate(row), []
    except pydantic.ValidationError as error:
        return None, [f"line {number}, {_key(fault['loc'])}: {_words(fault)}" for fault in error.errors()]


def _key(location: tuple[int | str, ...]) -> str:
    return str(location[0]) if location else "line"


def _words(fault: Any) -> str:
    if fault["type"] == "missing":
        return "is missing"
    if fault["type"] == "extra_forbidden":
        return f"unknown key; known: {', '.join(Sample.model_fields)}"
    return str(fault["msg"])


def _report(path: Path, problems: list[str]) -> str:
    shown = "\n".join(f"  {problem}" for problem in problems[:MAX_PROBLEMS_SHOWN])
    more = len(problems) - MAX_PROBLEMS_SHOWN
    rest = f"\n  … and {more} more" if more > 0 else ""
    return f"dataset {path}: {len(problems)} problem(s)\n{shown}{rest}"


def _as_text(value: object) -> object:
    """Numbers are common as ids and targets; everything else is left for validation to judge."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return str(value)
    return value
