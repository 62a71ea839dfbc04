"""Where declarations come from: this package's data folder, and folders of the same shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from registries.strict_yaml import StrictYamlError, parse_strict_yaml

Section = Literal["models", "strategies", "prompts", "flows", "tiers"]
TOP_FILES: tuple[str, ...] = ("models.yaml", "strategies.yaml")
FOLDERS: tuple[Literal["prompts", "flows"], ...] = ("prompts", "flows")
_ALLOWED_KEYS: dict[str, tuple[Section, ...]] = {
    "models.yaml": ("models", "tiers"),
    "strategies.yaml": ("strategies",),
    "prompts": ("prompts",),
}


@dataclass(frozen=True, slots=True)
class RawEntry:
    """One entry as it was written. ``file`` and ``key`` say where, ``layer`` counts the folders from 0."""

    section: Section
    file: str
    key: str
    value: Any
    layer: int


@dataclass(slots=True)
class CatalogFiles:
    """All entries of all folders in order, and what was wrong with the files."""

    entries: list[RawEntry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_catalog_files(extra_dirs: Sequence[str] = ()) -> CatalogFiles:
    """Read the package's own folder and then ``extra_dirs``; a folder that is missing is a problem."""
    found = CatalogFiles()
    _read_folder(files("registries") / "data", "registries/data", 0, found)
    for layer, folder in enumerate(extra_dirs, start=1):
        path = Path(folder)
        if path.is_dir():
            _read_folder(path, folder.rstrip("/"), layer, found)
        else:
            found.problems.append(f"{folder}: catalog folder does not exist")
    return found


def _read_folder(root: Traversable, shown: str, layer: int, found: CatalogFiles) -> None:
    for item in sorted(root.iterdir(), key=lambda entry: entry.name):
        where = f"{shown}/{item.name}"
        if item.is_dir() and item.name in FOLDERS:
            for inner in _yaml_files(item):
                _read_file(inner, item.name, f"{where}/{inner.name}", layer, found)
        elif item.name in TOP_FILES:
            _read_file(item, item.name, where, layer, found)
        elif item.name.endswith((".yaml", ".yml")):
            allowed = ", ".join((*TOP_FILES, *(f"{folder}/*.yaml" for folder in FOLDERS)))
            found.problems.append(f"{where}: unknown file; allowed: {allowed}")


def _yaml_files(folder: Traversable) -> Iterator[Traversable]:
    inner = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return (item for item in inner if item.name.endswith((".yaml", ".yml")))


def _read_file(item: Traversable, kind: str, where: str, layer: int, found: CatalogFiles) -> None:
    try:
        value = parse_strict_yaml(item.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        found.problems.append(f"{where}: not UTF-8 at byte {error.start}")
        return
    except OSError as error:
        found.problems.append(f"{where}: cannot be read: {error.strerror}")
        return
    except StrictYamlError as error:
        found.problems.extend(f"{where}: {problem}" for problem in error.problems)
        return
    if kind == "flows":
        found.entries.append(RawEntry("flows", where, "", value, layer))
    else:
        _split(value, _ALLOWED_KEYS[kind], where, layer, found)


def _split(value: Any, allowed: tuple[Section, ...], where: str, layer: int, found: CatalogFiles) -> None:
    if not isinstance(value, dict):
        found.problems.append(f"{where}: must be a mapping with {' and '.join(allowed)}")
        return
    for key in value:
        if key not in allowed:
            found.problems.append(f"{where}: {key}: unknown key; allowed: {', '.join(allowed)}")
    for section in allowed:
        entries = value.get(section)
        if entries is None:
            continue
        if section == "tiers":
            found.entries.append(RawEntry(section, where, section, entries, layer))
        elif isinstance(entries, list):
            found.entries.extend(
                RawEntry(section, where, f"{section}[{at}]", entry, layer) for at, entry in enumerate(entries)
            )
        else:
            found.problems.append(f"{where}: {section}: must be a list, got {type(entries).__name__}")
