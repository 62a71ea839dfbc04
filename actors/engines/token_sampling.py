"""The next token of each row, by the row's own temperature, top_k, top_p and seed."""

from __future__ import annotations

from typing import Any

from actors.engines.batch_row import BatchRow


def next_tokens(torch: Any, logits: Any, rows: list[BatchRow]) -> list[int]:
    """One token a row; ``logits`` has the shape [rows, vocabulary].

    Greedy rows share one argmax; a row with a seed draws from its own generator, so that its neighbours
    in the batch cannot change its answer.
    """
    best: list[int] = logits.argmax(dim=-1).tolist()
    for index, row in enumerate(rows):
        if row.temperature > 0:
            best[index] = _draw(torch, logits[index], row)
    return best


def _draw(torch: Any, logits: Any, row: BatchRow) -> int:
    if row.generator is None:
        row.generator = torch.Generator(device=logits.device)
        if row.seed is None:
            row.generator.seed()
        else:
            row.generator.manual_seed(row.seed)
    scores = logits.float() / row.temperature
    if row.top_k is not None and row.top_k < scores.shape[-1]:
        floor = torch.topk(scores, row.top_k).values[-1]
        scores = scores.masked_fill(scores < floor, float("-inf"))
    odds = torch.softmax(scores, dim=-1)
    if row.top_p < 1:
        ranked, order = torch.sort(odds, descending=True)
        outside = ranked.cumsum(dim=-1) - ranked >= row.top_p
        odds = odds.index_fill(0, order[outside], 0.0)
    return int(torch.multinomial(odds, 1, generator=row.generator).item())
