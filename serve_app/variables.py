"""The environment variables that the runtime knows: name, default, and which values are allowed.

Pure: texts in, values out. Only serve_app/settings.py reads the environment.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from registries.checked_base_url import checked_base_url

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})([eE][+-]?[0-9]{1,3})?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_KEY = re.compile(r"[\x21-\x7e]{16,512}")


class NotAllowed(Exception):
    """A text that is no value of its variable; carried as text only, see settings.load_settings."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: ``field`` is its name in Settings, ``allowed`` the words a user reads."""

    name: str
    field: str
    parse: Callable[[str], Any]
    allowed: str
    default: str = ""
    secret: bool = False
    about: str = ""

    def value_of(self, text: str | None) -> Any:
        """The value; an empty or missing text means the default. Raises NotAllowed."""
        chosen = (text or "").strip() or self.default
        return self.parse(chosen) if chosen else None


def choice(*names: str) -> Callable[[str], str]:
    """One of the names, in any case; answered as it is written here."""
    by_fold = {name.casefold(): name for name in names}

    def parse(text: str) -> str:
        if text.casefold() not in by_fold:
            raise NotAllowed
        return by_fold[text.casefold()]

    return parse


def integer(low: int, high: int) -> Callable[[str], int]:
    """A whole number within bounds, both included."""

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise NotAllowed
        return int(text)

    return parse


def number(above: float, high: float) -> Callable[[str], float]:
    """A finite number greater than ``above`` and at most ``high``."""

    def parse(text: str) -> float:
        if not _NUMBER.fullmatch(text) or not above < float(text) <= high:
            raise NotAllowed
        return float(text)

    return parse


def word(text: str) -> str:
    """A name as the registries allow it."""
    if not _WORD.fullmatch(text):
        raise NotAllowed
    return text


def words(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(word(part.strip()) for part in text.split(",") if part.strip())


def folder(text: str) -> str:
    """A path; ~ is the home directory; relative ones count from the current directory."""
    if "\x00" in text:
        raise NotAllowed
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError:
        # ~ or ~USER, and nobody knows a home directory for it.
        raise NotAllowed from None


def own_folder(text: str) -> str:
    """A folder by its one true name, so that two spellings of it are the same runtime."""
    try:
        return str(Path(folder(text)).resolve())
    except (RuntimeError, OSError):
        # Links that lead back to themselves; a name that is too long.
        raise NotAllowed from None


def folders(text: str) -> tuple[str, ...]:
    """Paths separated by colons."""
    return tuple(folder(part) for part in text.split(":") if part)


def model_name(text: str) -> str:
    """A Hugging Face id, a folder, or the name of a model at an endpoint; one line."""
    if not text.isprintable() or len(text) > 500:
        raise NotAllowed
    return text


def url(text: str) -> str:
    """An http or https URL with a host, without a trailing slash."""
    try:
        parts = urlsplit(checked_base_url(text))
    except ValueError:
        raise NotAllowed from None
    if parts.query or parts.fragment:
        raise NotAllowed
    return text.rstrip("/")


def store(text: str) -> str:
    """A database URL."""
    if not re.fullmatch(r"(sqlite|postgresql|postgres)://\S+", text):
        raise NotAllowed
    return text


def redis_server(text: str) -> str:
    """A Redis URL; also one with a password, or a socket's path."""
    if not re.fullmatch(r"(redis|rediss|unix)://\S+", text):
        raise NotAllowed
    return text


def secret(text: str) -> str:
    """A provider's key: one printable line."""
    if not text.isprintable() or any(c.isspace() for c in text):
        raise NotAllowed
    return text


def own_key(text: str) -> str:
    """The key of our own API: long enough that nobody guesses it."""
    if not _KEY.fullmatch(text):
        raise NotAllowed
    return text


def prose(text: str) -> str:
    """Any text."""
    return text


_PORT = (integer(1, 65_535), "a port number from 1 to 65535")
_SECRET = (secret, "one line without spaces")

VARIABLES: tuple[Variable, ...] = (
    Variable(
        "APP_ENV", "app_env", choice("dev", "test", "staging", "prod"), "dev, test, staging, prod", "dev"
    ),
    Variable(
        "LOG_LEVEL",
        "log_level",
        choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        "DEBUG, INFO, WARNING, ERROR, CRITICAL",
        "INFO",
    ),
    Variable("PORT", "http_port", *_PORT, "8001", about="the HTTP API"),
    Variable("OPENAI_API_KEY", "openai_api_key", *_SECRET, secret=True),
    Variable("ANTHROPIC_API_KEY", "anthropic_api_key", *_SECRET, secret=True),
    Variable("GOOGLE_API_KEY", "google_api_key", *_SECRET, secret=True),
    Variable("LANGSMITH_API_KEY", "langsmith_api_key", *_SECRET, secret=True),
    Variable(
        "LITELLM_PROXY_URL",
        "litellm_proxy_url",
        url,
        "http://HOST[:PORT] or https://…",
        about="a LiteLLM proxy, for models whose location is litellm_proxy/NAME",
    ),
    Variable("LITELLM_MASTER_KEY", "litellm_master_key", *_SECRET, secret=True),
    Variable(
        "DEFAULT_PROVIDER",
        "default_provider",
        word,
        "the provider of a registered model: local, openai, anthropic, google …",
        "local",
        about="where a model comes from when a request names none",
    ),
    Variable(
        "DEFAULT_STRATEGY",
        "default_strategy",
        word,
        "the name of a registered strategy, such as optimized",
        "optimized",
    ),
    Variable(
        "MAX_TOKENS_DEFAULT",
        "max_tokens_default",
        integer(1, 131_072),
        "a whole number from 1 to 131072",
        "1024",
    ),
    Variable("MAX_VRAM_USAGE_GB", "max_vram_usage_gb", number(0, 100_000), "a number of GB above 0", "6.0"),
    Variable("MODEL_CACHE_DIR", "model_cache_dir", folder, "a folder", ".cache/models"),
    Variable(
        "CIRCUIT_BREAKER_MAX_FAILURES",
        "breaker_max_failures",
        integer(1, 1000),
        "a whole number from 1 to 1000",
        "3",
    ),
    Variable(
        "CIRCUIT_BREAKER_TIMEOUT",
        "breaker_timeout_s",
        number(0, 86_400),
        "seconds, above 0 and at most 86400",
        "60",
    ),
    Variable(
        "PARLEY_HOME", "home", own_folder, "a folder", "~/.parley", about="keys, database, outputs, logs"
    ),
    Variable("PARLEY_API_KEY", "api_key", own_key, "16 to 512 visible ASCII characters", secret=True),
    Variable(
        "PARLEY_MODEL",
        "model",
        model_name,
        "a Hugging Face id, a folder with a model, or (with PARLEY_MODEL_URL) a name at the endpoint",
    ),
    Variable(
        "PARLEY_MODEL_URL",
        "model_url",
        url,
        "http://HOST[:PORT][/v1] or https://…",
        about="OpenAI-compatible",
    ),
    Variable("PARLEY_MODEL_API_KEY", "model_api_key", *_SECRET, secret=True),
    Variable(
        "PARLEY_MODEL_FAMILY",
        "model_family",
        word,
        "the family whose prompt variants fit, such as general",
        "general",
    ),
    Variable("PARLEY_MODEL_CONTEXT", "model_context", integer(16, 10_000_000), "a number of tokens from 16"),
    Variable("PARLEY_MODELS", "models", words, "keys of local models to load, separated by commas"),
    Variable(
        "PARLEY_ENGINE", "engine", choice("auto", "vllm", "transformers"), "auto, vllm, transformers", "auto"
    ),
    Variable("PARLEY_DASHBOARD_PORT", "dashboard_port", *_PORT, "8265", about="the Ray dashboard"),
    Variable("PARLEY_HAPROXY", "haproxy", choice("auto", "on", "off"), "auto, on, off", "auto"),
    Variable(
        "PARLEY_CATALOG_DIRS",
        "catalog_dirs",
        folders,
        "folders with your own models.yaml, flows/ …, separated by colons",
    ),
    Variable(
        "PARLEY_OUTPUTS_DIR", "outputs_dir", folder, "a folder", about="default: outputs in PARLEY_HOME"
    ),
    Variable(
        "PARLEY_STORE_URL",
        "store_url",
        store,
        "sqlite:///PATH or postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?schema=NAME]",
        secret=True,
        about="default: SQLite in PARLEY_HOME",
    ),
    Variable(
        "PARLEY_POOL_MIN",
        "pool_min",
        integer(1, 10_000),
        "a whole number from 1 to 10000",
        "10",
        about="connections to PostgreSQL that a node's processes keep open",
    ),
    Variable(
        "PARLEY_POOL_MAX",
        "pool_max",
        integer(2, 10_000),
        "a whole number from 2 to 10000",
        "20",
        about="connections to PostgreSQL that a node's processes open at most",
    ),
    Variable(
        "PARLEY_BACKUP_EVERY_H",
        "backup_every_h",
        integer(0, 8_760),
        "a whole number of hours from 0 (never) to 8760",
        "0",
        about="backups of the database into PARLEY_HOME/backups",
    ),
    Variable(
        "PARLEY_BACKUP_KEEP",
        "backup_keep",
        integer(1, 10_000),
        "a whole number from 1 to 10000",
        "7",
        about="how many of these backups stay",
    ),
    Variable(
        "PARLEY_RETENTION_RUNS_DAYS",
        "retention_runs_days",
        integer(0, 36_500),
        "a whole number of days from 0 (for ever) to 36500",
        "90",
        about="how long a run that ended is kept",
    ),
    Variable(
        "PARLEY_RETENTION_CHECKPOINTS_DAYS",
        "retention_checkpoints_days",
        integer(0, 36_500),
        "a whole number of days from 0 (as long as the run) to 36500",
        "7",
        about="how long the steps of a run that ended can be forked",
    ),
    Variable(
        "PARLEY_REDIS_URL",
        "redis_url",
        redis_server,
        "redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://… or unix://…",
        secret=True,
        about="Redis 7, for active runs and live events; default: none",
    ),
    Variable(
        "PARLEY_DEADLINE_S", "deadline_s", number(0, 86_400), "seconds, above 0 and at most 86400", "300"
    ),
    Variable(
        "PARLEY_LEASE_TTL_S",
        "lease_ttl_s",
        number(1, 3_600),
        "seconds, above 1 and at most 3600",
        "10",
        about="so long after a runner's last sign of life others take its runs over",
    ),
    Variable(
        "PARLEY_RUNNER_DRAIN_S",
        "runner_drain_s",
        number(0, 86_400),
        "seconds, above 0 and at most 86400",
        "20",
        about="how long a runner that is stopped lets its runs end before it hands them over",
    ),
    Variable(
        "PARLEY_MAX_QUEUED_RUNS",
        "max_queued_runs",
        integer(1, 10_000_000),
        "a whole number from 1 to 10000000",
        "20000",
        about="accepted runs that may wait; more are refused with 429",
    ),
    Variable(
        "PARLEY_MAX_BODY_BYTES",
        "max_body_bytes",
        integer(1024, 1_000_000_000),
        "a number of bytes from 1024",
        "8000000",
    ),
    Variable("PARLEY_EXPERT_WORKERS", "expert_workers", integer(0, 64), "a whole number from 0 to 64", "3"),
    Variable("PARLEY_MAX_RUNNERS", "max_runners", integer(1, 1000), "a whole number from 1 to 1000", "2"),
    Variable("PARLEY_MAX_INGRESSES", "max_ingresses", integer(1, 1000), "a whole number from 1 to 1000", "1"),
    Variable("PARLEY_TRACE_FILE", "trace_file", folder, "a file that spans are appended to"),
    Variable("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_endpoint", url, "http://HOST:PORT or https://…"),
    Variable("PROMPT", "demo_prompt", prose, "any text", about="the question of `make run`"),
    Variable("FLOW", "demo_flow", word, "the name of a flow", about="the flow of `make run`"),
)
