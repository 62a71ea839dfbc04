"""The runtime's configuration as plain data; only serve_app/settings.py reads the environment."""

from __future__ import annotations

from pydantic import Field

from registries.contracts.frozen import Frozen


class BreakerConfig(Frozen):
    """Consecutive failures that open, seconds until a probe."""

    max_failures: int = Field(default=3, ge=1)
    timeout_s: float = Field(default=60.0, gt=0)


class LeaseConfig(Frozen):
    """A run belongs to its runner while the lease is renewed.

    ``ttl_s`` without a renewal and another runner takes the run over; it is renewed every third of that.
    ``max_deaths``: a run that has ended so many of its runners is parked as failed.
    """

    ttl_s: float = Field(default=10.0, gt=0.2)
    scan_s: float = Field(default=1.0, gt=0)
    max_deaths: int = Field(default=3, ge=1)


class RetentionConfig(Frozen):
    """How long what ended is kept, in days; 0 keeps it for ever."""

    runs_days: float = Field(default=90.0, ge=0)
    checkpoints_days: float = Field(default=7.0, ge=0)
    every_s: float = Field(default=600.0, gt=0)


class BackupConfig(Frozen):
    """Backups on a schedule: every so many hours (0: none), the newest ``keep`` stay."""

    every_h: float = Field(default=0.0, ge=0)
    keep: int = Field(default=7, ge=1)
    folder: str = "backups"


class RuntimeConfig(Frozen):
    """Everything that processes of one runtime agree on; travels as JSON to every actor.

    ``provider_keys`` maps environment names (OPENAI_API_KEY …) to keys and is left out of every repr
    and log. ``extra_models`` are registry entries made from settings or flags (ModelSpec as JSON).
    """

    home: str
    instance: str = "default"
    app_env: str = "dev"
    log_level: str = "INFO"
    http_port: int = Field(default=8001, ge=1, le=65_535)
    dashboard_port: int = Field(default=8265, ge=1, le=65_535)
    haproxy: bool = True
    default_provider: str = "local"
    default_strategy: str = "optimized"
    max_tokens_default: int = Field(default=1024, ge=1)
    max_vram_usage_gb: float = Field(default=6.0, gt=0)
    model_cache_dir: str = ".cache/models"
    local_engine: str = "auto"
    breaker: BreakerConfig = BreakerConfig()
    provider_keys: dict[str, str] = Field(default_factory=dict, repr=False)
    api_key: str = Field(default="", repr=False)
    extra_models: tuple[dict[str, object], ...] = ()
    tiers: dict[str, str] = Field(default_factory=dict)
    catalog_dirs: tuple[str, ...] = ()
    outputs_dir: str = "outputs"
    store_url: str = Field(default="", repr=False)
    redis_url: str = Field(default="", repr=False)
    pool_min: int = Field(default=10, ge=1)
    pool_max: int = Field(default=20, ge=2)
    """Connections to PostgreSQL that the processes of one node share."""
    lease: LeaseConfig = LeaseConfig()
    retention: RetentionConfig = RetentionConfig()
    backup: BackupConfig = BackupConfig()
    max_queued_runs: int = Field(default=20_000, ge=0)
    """Accepted runs that may wait in the database before more are refused with 429."""
    max_body_bytes: int = Field(default=8_000_000, ge=1024)
    max_ongoing_requests: int = Field(default=256, ge=1)
    max_queued_requests: int = Field(default=256, ge=0)
    runner_max_ongoing: int = Field(default=64, ge=1)
    runner_max_queued: int = Field(default=128, ge=0)
    runner_max_replicas: int = Field(default=2, ge=1)
    runner_drain_s: float = Field(default=20.0, gt=0)
    """How long runs may go on when their runner is told to stop; then they are handed over."""
    ingress_max_replicas: int = Field(default=1, ge=1)
    expert_workers: int = Field(default=3, ge=0, le=64)
    default_deadline_s: float = Field(default=300.0, gt=0)
    otlp_endpoint: str | None = None
    trace_file: str | None = None
    models: tuple[str, ...] = ()
    """Keys of the local models to load; empty means every enabled local entry."""
