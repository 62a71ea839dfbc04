"""Idempotency keys: the same request twice is the same run; see kept_calls for those of model calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.stores.database import Transaction
from actors.stores.records import Accepted, IdempotencyKey
from registries.contracts.errors import KeyReused

REUSED = "this Idempotency-Key came with another request before"
_TAKE = (
    "INSERT INTO idempotency_keys (tenant, idempotency_key, digest, run_id, created_at)"
    " VALUES (?, ?, ?, ?, {now}) ON CONFLICT (tenant, idempotency_key) DO NOTHING"
)
_FIND = (
    "SELECT k.digest, k.run_id, r.run_id, r.status, r.last_seq FROM idempotency_keys k"
    " LEFT JOIN runs r ON r.run_id = k.run_id WHERE k.tenant = ? AND k.idempotency_key = ?"
)
_RETAKE = (
    "UPDATE idempotency_keys SET digest = ?, run_id = ?, created_at = {now}"
    " WHERE tenant = ? AND idempotency_key = ?"
)


def take_key(tx: Transaction, tenant: str, key: IdempotencyKey | None, run_id: str) -> Accepted | None:
    """Make the key stand for ``run_id``: None; or the run that it has stood for before, nothing written.

    Written first of all, so that of two at once the second waits here and then sees the first. A key whose
    run retention has removed is unseen. Raises KeyReused when its digest differs, or it is a model call's.
    """
    if key is None or tx.execute(_TAKE, (tenant, key.key, key.digest, run_id)).rowcount == 1:
        return None
    row = tx.execute(_FIND, (tenant, key.key)).fetchone()
    if row is None:
        # Its holder, a model call that failed, gave it up in this very moment.
        return take_key(tx, tenant, key, run_id)
    known = _run_of(row, key)
    if known is None:
        tx.execute(_RETAKE, (key.digest, run_id, tenant, key.key))
    return known


def known_run(tx: Transaction, tenant: str, key: IdempotencyKey) -> Accepted | None:
    """See RunStore.known_run."""
    row = tx.execute(_FIND, (tenant, key.key)).fetchone()
    return None if row is None else _run_of(row, key)


def _run_of(row: Sequence[Any], key: IdempotencyKey) -> Accepted | None:
    """The run of a key that was seen; None when retention has removed it."""
    digest, stands_for, found, status, last_seq = row
    if stands_for is not None and found is None:
        return None
    if stands_for is None or digest != key.digest:
        raise KeyReused(REUSED, param="Idempotency-Key")
    return Accepted(found, status, False, last_seq)
