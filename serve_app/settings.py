"""The only reader of the environment and of .env."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream

from registries.checked_base_url import without_credentials
from registries.contracts.config import (
    BackupConfig,
    BreakerConfig,
    LeaseConfig,
    RetentionConfig,
    RuntimeConfig,
)
from registries.contracts.errors import ValidationError
from serve_app.configured_model import configured_model
from serve_app.variables import VARIABLES, NotAllowed, Variable

LOCAL = "local"
"""The default provider: whatever is configured, else the embedded models."""
_KEY_SUFFIX = "_API_KEY"
_PROXY_NAMES = frozenset({"LITELLM_PROXY_URL", "LITELLM_MASTER_KEY"})
"""Address and key of a LiteLLM proxy; they travel with the providers' keys."""
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, checked; see serve_app/variables.py for names, defaults and allowed values.

    ``given`` has the names that somebody really set, ``given_in_environment`` those that the caller's shell
    has too. ``keys`` maps environment names to providers' keys;
    like ``api_key`` it is left out of every repr.
    """

    app_env: str
    log_level: str
    http_port: int
    openai_api_key: str | None = field(repr=False)
    anthropic_api_key: str | None = field(repr=False)
    google_api_key: str | None = field(repr=False)
    langsmith_api_key: str | None = field(repr=False)
    litellm_proxy_url: str | None
    litellm_master_key: str | None = field(repr=False)
    default_provider: str
    default_strategy: str
    max_tokens_default: int
    max_vram_usage_gb: float
    model_cache_dir: str
    breaker_max_failures: int
    breaker_timeout_s: float
    home: str
    api_key: str | None = field(repr=False)
    model: str | None
    model_url: str | None
    model_api_key: str | None = field(repr=False)
    model_family: str
    model_context: int | None
    models: tuple[str, ...] | None
    engine: str
    dashboard_port: int
    haproxy: str
    catalog_dirs: tuple[str, ...] | None
    outputs_dir: str | None
    store_url: str | None = field(repr=False)
    pool_min: int
    pool_max: int
    backup_every_h: int
    backup_keep: int
    retention_runs_days: int
    retention_checkpoints_days: int
    redis_url: str | None = field(repr=False)
    deadline_s: float
    lease_ttl_s: float
    runner_drain_s: float
    max_queued_runs: int
    max_body_bytes: int
    expert_workers: int
    max_runners: int
    max_ingresses: int
    trace_file: str | None
    otlp_endpoint: str | None
    demo_prompt: str | None
    demo_flow: str | None
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    given: frozenset[str] = frozenset()
    given_in_environment: frozenset[str] = frozenset()

    def runtime_config(self, **overrides: Any) -> RuntimeConfig:
        """What all processes of a runtime agree on; ``overrides`` are fields of RuntimeConfig.

        Raises ValidationError when PARLEY_MODEL names a folder that holds no model.
        """
        values: dict[str, Any] = {
            "home": self.home,
            "app_env": self.app_env,
            "log_level": self.log_level,
            "http_port": self.http_port,
            "dashboard_port": self.dashboard_port,
            "haproxy": self.haproxy == "on" or (self.haproxy == "auto" and sys.platform == "linux"),
            "default_provider": self.default_provider,
            "default_strategy": self.default_strategy,
            "max_tokens_default": self.max_tokens_default,
            "max_vram_usage_gb": self.max_vram_usage_gb,
            "model_cache_dir": self.model_cache_dir,
            "local_engine": self.engine,
            "breaker": BreakerConfig(
                max_failures=self.breaker_max_failures, timeout_s=self.breaker_timeout_s
            ),
            "provider_keys": dict(self.keys),
            "api_key": self.api_key or "",
            "catalog_dirs": self.catalog_dirs or (),
            "outputs_dir": self.outputs_dir or str(Path(self.home) / "outputs"),
            "store_url": self.store_url or "",
            "pool_min": self.pool_min,
            "pool_max": self.pool_max,
            "backup": BackupConfig(every_h=self.backup_every_h, keep=self.backup_keep),
            "retention": RetentionConfig(
                runs_days=self.retention_runs_days, checkpoints_days=self.retention_checkpoints_days
            ),
            "lease": LeaseConfig(ttl_s=self.lease_ttl_s),
            "runner_drain_s": self.runner_drain_s,
            "max_queued_runs": self.max_queued_runs,
            "redis_url": self.redis_url or "",
            "max_body_bytes": self.max_body_bytes,
            "runner_max_replicas": self.max_runners,
            "ingress_max_replicas": self.max_ingresses,
            "expert_workers": self.expert_workers,
            "default_deadline_s": self.deadline_s,
            "otlp_endpoint": self.otlp_endpoint,
            "trace_file": self.trace_file,
            "models": self.models or (),
        }
        if self.model:
            values |= self._for_own_model(self.model)
        return RuntimeConfig(**(values | overrides))

    def _for_own_model(self, model: str) -> dict[str, Any]:
        """The configured model takes the place of the embedded ones (the loader gives it every tier)."""
        spec = configured_model(
            model,
            url=self.model_url,
            family=self.model_family,
            context=self.model_context,
            strategy=self.default_strategy,
            cache_dir=self.model_cache_dir,
            with_key=self.model_api_key is not None,
        )
        values: dict[str, Any] = {"extra_models": (spec.model_dump(mode="json"),)}
        if self.default_provider == LOCAL:
            values["default_provider"] = spec.provider
        return values


def load_settings(
    env: Mapping[str, str] | None = None,
    env_file: str | Path | None = ".env",
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from ``overrides`` (flags) over ``env`` (the process's) over ``env_file`` over the defaults.

    Unknown names are ignored; an empty value means the default. Raises one ValidationError that lists
    every wrong value with its name, the value (never a secret's) and what is allowed.
    """
    problems: list[str] = []
    environment = os.environ if env is None else env
    texts = {**_read_env_file(env_file, problems), **environment, **(overrides or {})}
    values: dict[str, Any] = {}
    for variable in VARIABLES:
        try:
            values[variable.field] = variable.value_of(texts.get(variable.name))
        except NotAllowed:
            problems.append(_refusal(variable, texts.get(variable.name) or variable.default))
    problems += _contradictions(values)
    if problems:
        raise ValidationError(
            "wrong configuration:\n" + "\n".join(f"  {p}" for p in problems), param=problems[0].split("=")[0]
        )
    keys = {name: text.strip() for name, text in texts.items() if _is_provider_key(name) and text.strip()}
    return Settings(**values, keys=keys, given=_given(texts), given_in_environment=_given(environment))


def _given(texts: Mapping[str, str]) -> frozenset[str]:
    return frozenset(variable.name for variable in VARIABLES if texts.get(variable.name, "").strip())


def _refusal(variable: Variable, text: str) -> str:
    shown = "(a secret, not shown)" if variable.secret else repr(without_credentials(text)[:_SHOWN_CHARS])
    return f"{variable.name}={shown} is not allowed. Allowed: {variable.allowed}"


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """Values that are right alone and wrong together."""
    problems = []
    if values.get("model_url") and not values.get("model"):
        problems.append(
            "PARLEY_MODEL_URL needs PARLEY_MODEL. Allowed: the name of a model that the endpoint serves"
        )
    pool_min, pool_max = values.get("pool_min"), values.get("pool_max")
    if pool_min is not None and pool_max is not None and pool_min > pool_max:
        problems.append(
            f"PARLEY_POOL_MIN={pool_min} is more than PARLEY_POOL_MAX. Allowed: {pool_max} at most"
        )
    http, dashboard = values.get("http_port"), values.get("dashboard_port")
    if http is not None and http == dashboard:
        problems.append(f"PARLEY_DASHBOARD_PORT={dashboard} is also PORT. Allowed: two different ports")
    if values.get("haproxy") == "on" and sys.platform != "linux":
        problems.append(
            "PARLEY_HAPROXY='on' is not allowed. Allowed on this system: auto, off (HAProxy runs on Linux)"
        )
    return problems


def _is_provider_key(name: str) -> bool:
    return name in _PROXY_NAMES or (name.endswith(_KEY_SUFFIX) and name != "PARLEY_API_KEY")


def _read_env_file(path: str | Path | None, problems: list[str]) -> dict[str, str]:
    """Lines of a .env file; without interpolation, so that a key may hold any sign."""
    if path is None or not Path(path).is_file():
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(
            f"{path}: cannot be read ({error.__class__.__name__}). Allowed: a UTF-8 file of NAME=value lines"
        )
        return {}
    found: dict[str, str] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            problems.append(
                f"{path}, line {binding.original.line}: not understood. Allowed: NAME=value, # comment"
            )
        elif binding.key and binding.value is not None:
            found[binding.key] = binding.value
    return found
