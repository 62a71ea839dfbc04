"""plan.json: what the results of a folder are results of, so that a rerun cannot mix two evaluations."""

from __future__ import annotations

import os
from pathlib import Path

import pydantic
from pydantic import Field

from registries.contracts.errors import StoreError, ValidationError
from registries.contracts.frozen import Frozen


class Plan(Frozen):
    """What must be equal between two runs into one folder; ``votes`` keeps the matched numbers of samples."""

    seed: int
    max_tokens: int | None
    vote_temperature: float
    roles: dict[str, str] = Field(default_factory=dict)
    flows: dict[str, str] = Field(default_factory=dict)
    """Flow to version (content hash)."""
    samples: dict[str, str] = Field(default_factory=dict)
    """Sample id to digest of its question and target."""
    votes: dict[str, int] = Field(default_factory=dict)

    def joined(self, now: Plan) -> Plan:
        """This plan with more flows and samples; raises ValidationError naming everything that differs."""
        problems = [
            f"{name} was {mine!r} and is {theirs!r}"
            for name in ("seed", "max_tokens", "vote_temperature", "roles")
            if (mine := getattr(self, name)) != (theirs := getattr(now, name))
        ]
        problems += [
            f"flow {name} was version {self.flows[name]} and is {version}"
            for name, version in now.flows.items()
            if self.flows.get(name, version) != version
        ]
        changed = sorted(i for i, digest in now.samples.items() if self.samples.get(i, digest) != digest)
        if changed:
            shown = ", ".join(changed[:5])
            problems.append(
                f"the data set changed under {len(changed)} id(s): {shown}{' …' if changed[5:] else ''}"
            )
        if problems:
            raise ValidationError(
                f"the folder holds another evaluation's results: {'; '.join(problems)}. Choose another --out",
                param="out",
            )
        return now.model_copy(
            update={
                "flows": {**self.flows, **now.flows},
                "samples": {**self.samples, **now.samples},
                "votes": {**self.votes, **now.votes},
            }
        )


def read_plan(path: Path) -> Plan | None:
    """The plan of an earlier run, if there is one; raises ValidationError for a file that is none."""
    try:
        return Plan.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except pydantic.ValidationError as error:
        raise ValidationError(
            f"{path}: not the plan of an evaluation. Choose another --out", param="out"
        ) from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}", param="out") from error


def write_atomically(path: Path, text: str) -> None:
    """Whole or not at all, and on disk when it returns; raises StoreError when it cannot be written."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}", param="out") from error
