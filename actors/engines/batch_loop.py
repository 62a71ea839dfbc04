"""The thread that runs a Transformers model over everybody's requests at once."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from actors.engines.batch_row import BatchRow, Piece
from actors.engines.token_sampling import next_tokens


@dataclass(slots=True)
class _Cohort:
    """Rows that were prefilled together and share one cache, left-padded."""

    rows: list[BatchRow]
    cache: Any
    mask: Any
    tokens: list[int]


class BatchLoop:
    """Continuous batching by cohorts.

    Requests that arrive during a step are prefilled together before the next one, as a cohort of their
    own; every round takes one step of each cohort, so that nobody waits for a long answer to end. Finished
    and cancelled rows leave their cohort between steps, which frees their memory.
    """

    def __init__(self, model: Any, pad_id: int, max_rows: int) -> None:
        self._model = model
        self._pad_id = pad_id
        self._max_rows = max_rows
        self._arrived: deque[BatchRow] = deque()
        self._cohorts: list[_Cohort] = []
        self._wake = threading.Condition()
        self._closing = False
        self.tokens = 0
        """Tokens made since the start; written by the loop's thread alone."""
        self._thread = threading.Thread(target=self._run, name="transformers-batch", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def running(self) -> int:
        """Rows that hold memory in the model's cache."""
        return sum(len(cohort.rows) for cohort in self._cohorts)

    @property
    def waiting(self) -> int:
        """Rows that no cohort has taken yet."""
        return len(self._arrived)

    def submit(self, row: BatchRow) -> None:
        """Queue a row; its pieces come through ``row.deliver``, from the loop's thread."""
        with self._wake:
            self._arrived.append(row)
            self._wake.notify()

    def close(self) -> None:
        """Stop after the current step; blocks until the thread has ended."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        import torch

        with torch.inference_mode():
            while self._wait_for_work():
                self._admit(torch)
                for cohort in list(self._cohorts):
                    self._guarded(cohort, lambda cohort=cohort: self._step(torch, cohort))

    def _wait_for_work(self) -> bool:
        with self._wake:
            while not (self._closing or self._arrived or self._cohorts):
                self._wake.wait()
            return not self._closing

    def _admit(self, torch: Any) -> None:
        with self._wake:
            free = self._max_rows - self.running
            rows = [self._arrived.popleft() for _ in range(min(free, len(self._arrived)))]
        rows = [row for row in rows if not row.cancelled]
        if not rows:
            return
        cohort = _Cohort(rows, None, None, [])
        self._cohorts.append(cohort)
        self._guarded(cohort, lambda: self._prefill(torch, cohort))

    def _guarded(self, cohort: _Cohort, work: Any) -> None:
        """A failing step ends its cohort with the error, never the thread."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever the model raises goes to the waiting calls
            for row in cohort.rows:
                row.deliver(Piece("", 0, error=error))
            cohort.rows = []
        if not cohort.rows:
            self._cohorts.remove(cohort)

    def _prefill(self, torch: Any, cohort: _Cohort) -> None:
        width = max(len(row.prompt) for row in cohort.rows)
        padding = [width - len(row.prompt) for row in cohort.rows]
        device = self._model.device
        ids = [[self._pad_id] * pad + row.prompt for pad, row in zip(padding, cohort.rows, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in padding]
        cohort.mask = torch.tensor(mask, device=device)
        positions = (cohort.mask.cumsum(dim=-1) - 1).clamp(min=0)
        self._forward(torch, cohort, torch.tensor(ids, device=device), positions)

    def _step(self, torch: Any, cohort: _Cohort) -> None:
        self._leave_out(torch, cohort, [not row.cancelled for row in cohort.rows])
        if not cohort.rows:
            return
        ones = torch.ones((len(cohort.rows), 1), dtype=cohort.mask.dtype, device=cohort.mask.device)
        cohort.mask = torch.cat([cohort.mask, ones], dim=1)
        positions = cohort.mask.sum(dim=-1, keepdim=True) - 1
        ids = torch.tensor([[token] for token in cohort.tokens], device=self._model.device)
        self._forward(torch, cohort, ids, positions)

    def _forward(self, torch: Any, cohort: _Cohort, ids: Any, positions: Any) -> None:
        output = self._model(
            input_ids=ids,
            attention_mask=cohort.mask,
            position_ids=positions,
            past_key_values=cohort.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cohort.cache = output.past_key_values
        cohort.tokens = next_tokens(torch, output.logits[:, -1, :], cohort.rows)
        self.tokens += len(cohort.rows)
        living = []
        for row, token in zip(cohort.rows, cohort.tokens, strict=True):
            piece = row.accept(token)
            living.append(piece.finish_reason is None)
            row.deliver(piece)
        self._leave_out(torch, cohort, living)

    @staticmethod
    def _leave_out(torch: Any, cohort: _Cohort, living: list[bool]) -> None:
        if all(living):
            return
        keep = [index for index, lives in enumerate(living) if lives]
        cohort.rows = [cohort.rows[index] for index in keep]
        cohort.tokens = [cohort.tokens[index] for index in keep]
        if keep:
            chosen = torch.tensor(keep, device=cohort.mask.device)
            cohort.mask = cohort.mask[chosen]
            cohort.cache.batch_select_indices(chosen)
