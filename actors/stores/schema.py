"""The tables, once for both databases, as an ordered list of migrations.

``{blob}``, ``{real}``, ``{int}`` and ``{json}`` are the dialect's types, ``{strict}`` and ``{strict_keyed}``
what ends a table of rows, and one that is kept in the order of its key. Version 1 is the first SQLite schema,
which other databases never had: they begin with version 2's tables at once.
"""

from __future__ import annotations

SQLITE_FIRST: tuple[str, ...] = (
    """CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        user TEXT NOT NULL,
        request_id TEXT NOT NULL,
        flow TEXT NOT NULL,
        flow_version TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
        attempt INTEGER NOT NULL DEFAULT 0,
        conversation_id TEXT,
        request TEXT NOT NULL,
        result TEXT,
        traceparent TEXT,
        created_at REAL NOT NULL,
        started_at REAL,
        finished_at REAL
    ) STRICT""",
    "CREATE INDEX runs_by_owner ON runs (tenant, user, created_at)",
    "CREATE INDEX runs_by_conversation ON runs (tenant, conversation_id, created_at)"
    " WHERE conversation_id IS NOT NULL",
    "CREATE INDEX runs_open ON runs (status) WHERE status IN ('queued', 'running')",
    """CREATE TABLE events (
        run_id TEXT NOT NULL REFERENCES runs (run_id),
        seq INTEGER NOT NULL,
        time REAL NOT NULL,
        type TEXT NOT NULL,
        node TEXT,
        attempt INTEGER NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (run_id, seq)
    ) STRICT, WITHOUT ROWID""",
)

DURABLE_RUNS: tuple[str, ...] = (
    """CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        user_name TEXT NOT NULL,
        request_id TEXT NOT NULL,
        flow TEXT NOT NULL,
        flow_version TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN
            ('queued', 'running', 'waiting', 'completed', 'failed', 'cancelled')),
        priority {int} NOT NULL DEFAULT 0,
        attempts {int} NOT NULL DEFAULT 0,
        deaths {int} NOT NULL DEFAULT 0,
        lease_token {int} NOT NULL DEFAULT 0,
        lease_owner TEXT,
        lease_until {real} NOT NULL DEFAULT 0,
        cancel_requested {int} NOT NULL DEFAULT 0,
        last_seq {int} NOT NULL DEFAULT 0,
        parent TEXT,
        conversation_id TEXT,
        request TEXT NOT NULL,
        result TEXT,
        answer TEXT,
        error_code TEXT,
        waiting TEXT,
        decision TEXT,
        traceparent TEXT,
        created_at {real} NOT NULL,
        queued_at {real} NOT NULL,
        started_at {real},
        finished_at {real},
        deadline_at {real} NOT NULL
    ){strict}""",
    "CREATE INDEX runs_by_tenant ON runs (tenant, run_id)",
    # All that statistics read of a run: its row holds request and result, and would be read past those.
    "CREATE INDEX runs_by_time ON runs"
    " (tenant, created_at, run_id, user_name, flow, status, error_code, finished_at)",
    "CREATE INDEX runs_by_version ON runs (flow_version)",
    "CREATE INDEX runs_by_conversation ON runs (tenant, conversation_id, created_at)"
    " WHERE conversation_id IS NOT NULL",
    "CREATE INDEX runs_queue ON runs (priority DESC, queued_at, run_id) WHERE status = 'queued'",
    "CREATE INDEX runs_leases ON runs (lease_until) WHERE status = 'running'",
    "CREATE INDEX runs_waiting ON runs (run_id) WHERE status = 'waiting'",
    "CREATE INDEX runs_ended ON runs (finished_at) WHERE finished_at IS NOT NULL",
    """CREATE TABLE events (
        run_id TEXT NOT NULL REFERENCES runs (run_id) ON DELETE CASCADE,
        seq {int} NOT NULL,
        time {real} NOT NULL,
        type TEXT NOT NULL,
        node TEXT,
        attempt {int} NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (run_id, seq)
    ){strict_keyed}""",
    """CREATE TABLE flow_versions (
        version TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        spec TEXT NOT NULL,
        first_used_at {real} NOT NULL
    ){strict}""",
    """CREATE TABLE checkpoints (
        thread_id TEXT NOT NULL,
        ns TEXT NOT NULL,
        checkpoint_id TEXT NOT NULL,
        parent_id TEXT,
        type TEXT NOT NULL,
        data {blob} NOT NULL,
        metadata {blob} NOT NULL,
        created_at {real} NOT NULL,
        PRIMARY KEY (thread_id, ns, checkpoint_id)
    ){strict_keyed}""",
    """CREATE TABLE checkpoint_writes (
        thread_id TEXT NOT NULL,
        ns TEXT NOT NULL,
        checkpoint_id TEXT NOT NULL,
        task_id TEXT NOT NULL,
        idx {int} NOT NULL,
        channel TEXT NOT NULL,
        type TEXT NOT NULL,
        data {blob} NOT NULL,
        task_path TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (thread_id, ns, checkpoint_id, task_id, idx)
    ){strict_keyed}""",
    """CREATE TABLE usage (
        run_id TEXT NOT NULL REFERENCES runs (run_id) ON DELETE CASCADE,
        node TEXT NOT NULL,
        visit {int} NOT NULL,
        status TEXT NOT NULL,
        model TEXT,
        provider TEXT,
        prompt_tokens {int} NOT NULL,
        completion_tokens {int} NOT NULL,
        cost_micro_usd {int} NOT NULL,
        duration_s {real} NOT NULL,
        cache_hit {int} NOT NULL,
        error_code TEXT,
        PRIMARY KEY (run_id, node, visit)
    ){strict_keyed}""",
    """CREATE TABLE feedback (
        run_id TEXT NOT NULL REFERENCES runs (run_id) ON DELETE CASCADE,
        user_name TEXT NOT NULL,
        rating {real} NOT NULL,
        comment TEXT,
        created_at {real} NOT NULL,
        PRIMARY KEY (run_id, user_name)
    ){strict_keyed}""",
    """CREATE TABLE idempotency_keys (
        tenant TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        digest TEXT NOT NULL,
        run_id TEXT NOT NULL,
        created_at {real} NOT NULL,
        PRIMARY KEY (tenant, idempotency_key)
    ){strict_keyed}""",
    "CREATE INDEX idempotency_by_run ON idempotency_keys (run_id)",
    """CREATE TABLE turns (
        job TEXT PRIMARY KEY,
        taken_at {real} NOT NULL
    ){strict}""",
)

SQLITE_SET_ASIDE: tuple[str, ...] = (
    "DROP INDEX runs_by_owner",
    "DROP INDEX runs_by_conversation",
    "DROP INDEX runs_open",
    "ALTER TABLE events RENAME TO first_events",
    "ALTER TABLE runs RENAME TO first_runs",
)
"""Version 1's tables under other names, with all that is in them."""

SQLITE_BRING_FORWARD: tuple[str, ...] = (
    # A run that was open begins again: version 1 kept no states. 300 s was the deadline where none was given.
    """INSERT INTO runs (run_id, tenant, user_name, request_id, flow, flow_version, status, attempts,
        last_seq, conversation_id, request, result, answer, error_code, traceparent, created_at, queued_at,
        started_at, finished_at, deadline_at)
    SELECT run_id, tenant, user, request_id, flow, flow_version,
        CASE status WHEN 'running' THEN 'queued' ELSE status END, attempt,
        COALESCE((SELECT MAX(seq) FROM first_events e WHERE e.run_id = r.run_id), 0),
        conversation_id, request, result, json_extract(result, '$.answer'),
        json_extract(result, '$.error.code'), traceparent, created_at, created_at, started_at, finished_at,
        {now} + COALESCE(json_extract(request, '$.deadline_s'), 300.0)
    FROM first_runs r""",
    "INSERT INTO events (run_id, seq, time, type, node, attempt, data)"
    " SELECT run_id, seq, time, type, node, attempt, data FROM first_events",
    "DROP TABLE first_events",
    "DROP TABLE first_runs",
)

SQLITE_LEASE_CLOCK: tuple[str, ...] = (
    # Which boot of the machine the leases' readings of the monotonic clock belong to; one row.
    "CREATE TABLE lease_clock (boot_id TEXT NOT NULL, reading REAL NOT NULL) STRICT",
)

KEPT_CALLS: tuple[str, ...] = (
    # A key that stands for a model call has no run. Made anew: SQLite cannot take NOT NULL off a column.
    "DROP INDEX idempotency_by_run",
    "ALTER TABLE idempotency_keys RENAME TO first_keys",
    """CREATE TABLE idempotency_keys (
        tenant TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        digest TEXT NOT NULL,
        run_id TEXT,
        created_at {real} NOT NULL,
        PRIMARY KEY (tenant, idempotency_key)
    ){strict_keyed}""",
    "INSERT INTO idempotency_keys (tenant, idempotency_key, digest, run_id, created_at)"
    " SELECT tenant, idempotency_key, digest, run_id, created_at FROM first_keys",
    "DROP TABLE first_keys",
    "CREATE INDEX idempotency_by_run ON idempotency_keys (run_id)",
    # Who makes a keyed model call, then its answer.
    """CREATE TABLE kept_calls (
        tenant TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        lease_owner TEXT NOT NULL,
        lease_token TEXT NOT NULL,
        lease_until {real} NOT NULL,
        answer TEXT,
        changed_at {real} NOT NULL,
        PRIMARY KEY (tenant, idempotency_key),
        FOREIGN KEY (tenant, idempotency_key)
            REFERENCES idempotency_keys (tenant, idempotency_key) ON DELETE CASCADE
    ){strict}""",
    "CREATE INDEX kept_calls_by_time ON kept_calls (changed_at)",
)

SQLITE_TYPES: dict[str, str] = {
    "blob": "BLOB",
    "real": "REAL",
    "int": "INTEGER",
    "json": "TEXT",
    "strict": " STRICT",
    "strict_keyed": " STRICT, WITHOUT ROWID",
}

Migrations = dict[int, tuple[str, ...]]

MIGRATIONS: dict[str, Migrations] = {
    "sqlite": {
        1: SQLITE_FIRST,
        2: (*SQLITE_SET_ASIDE, *DURABLE_RUNS, *SQLITE_BRING_FORWARD, *SQLITE_LEASE_CLOCK),
        3: KEPT_CALLS,
    },
    "postgresql": {2: DURABLE_RUNS, 3: KEPT_CALLS},
}
"""Backend → version → statements. Never edited once released, only appended to."""
