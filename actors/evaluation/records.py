"""results.jsonl: one line an item and arm, on disk before it counts as done."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import pydantic
from pydantic import Field

from registries.contracts.errors import StoreError, ValidationError
from registries.contracts.frozen import Frozen
from registries.contracts.runs import ErrorFact


class ItemRecord(Frozen):
    """What one arm made of one sample.

    ``first_answer`` is the flow's baseline (its first draft), a single model's only answer, or a vote's
    first sample. Correct flags are None without a target, ``first_correct`` also without a first answer.
    """

    arm: str
    id: str
    category: str | None = None
    first_answer: str | None = None
    final_answer: str = ""
    first_correct: bool | None = None
    final_correct: bool | None = None
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cost_micro_usd: int = Field(default=0, ge=0)
    latency_s: float = Field(default=0.0, ge=0)
    calls: int = Field(default=0, ge=0)
    """Model calls that answered."""
    rounds: int = Field(default=0, ge=0)
    run_id: str | None = None
    error: ErrorFact | None = None

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.prompt_tokens + self.completion_tokens


class ResultLog:
    """The file of one evaluation; the last record of an (arm, id) is the one that counts.

    Opening it cuts off a torn last line (a writer that died in the middle of it), so that the item is
    done again. Raises ValidationError for a line inside that is no record, StoreError when it cannot write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: dict[tuple[str, str], ItemRecord] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+")
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror}", param="out") from error
        try:
            self._load()
        except BaseException:
            self._file.close()
            raise

    def append(self, record: ItemRecord) -> None:
        """Add one line; it is on disk when this returns (blocking: call it from a thread)."""
        line = record.model_dump_json().encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}", param="out") from error
        self._records[record.arm, record.id] = record

    def finished(self, arm: str) -> set[str]:
        """Ids that this arm has answered; an item that ended in an error is not finished."""
        return {record.id for record in self.of(arm) if record.error is None}

    def of(self, arm: str) -> list[ItemRecord]:
        """The arm's records, by id."""
        mine = [record for (name, _), record in self._records.items() if name == arm]
        return sorted(mine, key=lambda record: record.id)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._file.close()

    def __enter__(self) -> ResultLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self) -> None:
        self._file.seek(0)
        good = 0
        for number, line in enumerate(self._file, start=1):
            try:
                record = ItemRecord.model_validate_json(line)
            except pydantic.ValidationError as error:
                if self._file.read(1):
                    raise ValidationError(
                        f"{self.path}, line {number}: not a result; repair the line or take it out",
                        param="out",
                    ) from error
                break
            if not line.endswith(b"\n"):
                break
            good += len(line)
            self._records[record.arm, record.id] = record
        self._file.truncate(good)
        self._file.seek(0, os.SEEK_END)
