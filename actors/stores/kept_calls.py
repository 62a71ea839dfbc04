"""Model calls that came with an Idempotency-Key: one process makes each, and its answer is kept."""

from __future__ import annotations

from actors.stores.database import Transaction
from actors.stores.idempotency import REUSED
from actors.stores.records import CallClaim, CallState, IdempotencyKey
from registries.contracts.errors import KeyReused, LeaseLost

_TAKE = (
    "INSERT INTO idempotency_keys (tenant, idempotency_key, digest, run_id, created_at)"
    " VALUES (?, ?, ?, NULL, {now}) ON CONFLICT (tenant, idempotency_key) DO NOTHING"
)
# Locked, so that its holder cannot give it up before the call below it is written.
_FIND_KEY = (
    "SELECT digest, run_id FROM idempotency_keys WHERE tenant = ? AND idempotency_key = ? {for_update}"
)
_RETAKE = (
    "UPDATE idempotency_keys SET digest = ?, run_id = NULL, created_at = {now}"
    " WHERE tenant = ? AND idempotency_key = ? AND run_id IS NOT NULL"
)
_BEGIN = (
    "INSERT INTO kept_calls (tenant, idempotency_key, lease_owner, lease_token, lease_until, changed_at)"
    " VALUES (?, ?, ?, ?, {lease_now} + ?, {now}) ON CONFLICT (tenant, idempotency_key) DO NOTHING"
)
# Its own claim a process may take again: it knows that it does not make this call now, and may not know
# whether an earlier claim was committed.
_TAKE_OVER = (
    "UPDATE kept_calls SET lease_owner = ?, lease_token = ?, lease_until = {lease_now} + ?,"
    " changed_at = {now} WHERE tenant = ? AND idempotency_key = ? AND answer IS NULL"
    " AND (lease_until <= {lease_now} OR lease_owner = ?)"
)
_ANSWER = "SELECT answer FROM kept_calls WHERE tenant = ? AND idempotency_key = ?"
_LOOK = (
    "SELECT k.digest, c.answer, c.lease_until > {lease_now} FROM idempotency_keys k"
    " LEFT JOIN kept_calls c ON c.tenant = k.tenant AND c.idempotency_key = k.idempotency_key"
    " WHERE k.tenant = ? AND k.idempotency_key = ?"
)
_KEEP = (
    "UPDATE kept_calls SET answer = ?, changed_at = {now}"
    " WHERE tenant = ? AND idempotency_key = ? AND lease_token = ? AND answer IS NULL"
)
# The call goes with its key (ON DELETE CASCADE).
_GIVE_UP = (
    "DELETE FROM idempotency_keys WHERE tenant = ? AND idempotency_key = ? AND EXISTS"
    " (SELECT 1 FROM kept_calls c WHERE c.tenant = idempotency_keys.tenant"
    " AND c.idempotency_key = idempotency_keys.idempotency_key AND c.lease_token = ? AND c.answer IS NULL)"
)
_RELEASE = (
    "UPDATE kept_calls SET lease_until = {lease_now} WHERE answer IS NULL AND lease_until > {lease_now}"
    " AND substr(lease_owner, 1, ?) <> ?"
)
_PRUNE = (
    "WITH old AS (SELECT tenant, idempotency_key FROM kept_calls WHERE changed_at < ?"
    " AND (answer IS NOT NULL OR lease_until <= {lease_now}) ORDER BY changed_at LIMIT ? {skip_locked})"
    " DELETE FROM idempotency_keys WHERE (tenant, idempotency_key)"
    " IN (SELECT tenant, idempotency_key FROM old) RETURNING 1"
)


def claim_call(tx: Transaction, key: IdempotencyKey, claim: CallClaim) -> CallState:
    """See CallStore.claim_call."""
    place = (claim.tenant, claim.key)
    if tx.execute(_TAKE, (*place, key.digest)).rowcount != 1:
        found = tx.execute(_FIND_KEY, place).fetchone()
        if found is None:
            # Its holder gave it up in this very moment: there is nothing to wait for but the next look.
            return CallState("held")
        digest, run_id = found
        is_used = digest != key.digest if run_id is None else _is_kept(tx, run_id)
        if is_used:
            raise KeyReused(REUSED, param="Idempotency-Key")
        if run_id is not None:
            # Of a run that retention has removed: unseen.
            tx.execute(_RETAKE, (key.digest, *place))
    held = (claim.owner, claim.token, float(claim.ttl_s))
    if tx.execute(_BEGIN, (*place, *held)).rowcount == 1:
        return CallState("free")
    if tx.execute(_TAKE_OVER, (*held, *place, claim.owner)).rowcount == 1:
        return CallState("free")
    answer = tx.execute(_ANSWER, place).fetchone()
    return CallState("held") if answer is None or answer[0] is None else CallState("answered", answer[0])


def look_at_call(tx: Transaction, tenant: str, key: IdempotencyKey) -> CallState:
    """See CallStore.look_at_call."""
    found = tx.execute(_LOOK, (tenant, key.key)).fetchone()
    if found is None:
        return CallState("free")
    digest, answer, is_held = found
    if digest != key.digest:
        raise KeyReused(REUSED, param="Idempotency-Key")
    if answer is not None:
        return CallState("answered", answer)
    return CallState("held" if is_held else "free")


def keep_answer(tx: Transaction, claim: CallClaim, answer: str) -> None:
    """See CallStore.keep_answer."""
    if tx.execute(_KEEP, (answer, claim.tenant, claim.key, claim.token)).rowcount != 1:
        raise LeaseLost("another process has taken this call over", param="Idempotency-Key")


def give_up_call(tx: Transaction, claim: CallClaim) -> None:
    """See CallStore.give_up_call."""
    tx.execute(_GIVE_UP, (claim.tenant, claim.key, claim.token))


def release_calls(tx: Transaction, owner_prefix: str) -> None:
    """End the leases of every owner that does not start with ``owner_prefix``: their processes are gone."""
    tx.execute(_RELEASE, (len(owner_prefix), owner_prefix))


def prune_calls(tx: Transaction, changed_before: float, limit: int) -> int:
    """Remove answers that are older, with their keys, and calls that nobody makes any more; how many."""
    return len(tx.execute(_PRUNE, (changed_before, limit)).fetchall())


def _is_kept(tx: Transaction, run_id: str) -> bool:
    return tx.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone() is not None
