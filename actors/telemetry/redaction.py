"""No secret leaves in a log line or a span: one redactor for both."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from registries.contracts.config import RuntimeConfig

REDACTED = "[redacted]"
SECRET_NAME = re.compile(
    r"(^|[_\-.])(api[_-]?key|key|keys|secret|password|passwd|authorization|cookie|credential[s]?|token|bearer)$",
    re.IGNORECASE,
)
"""Names whose values never leave. ``max_tokens`` and ``prompt_tokens`` end in a plural that is not listed."""

SECRET_VALUE = re.compile(r"\b(sk-[A-Za-z0-9_\-]{12,}|AIza[A-Za-z0-9_\-]{20,}|Bearer\s+[A-Za-z0-9._\-]{8,})")
"""Shapes of providers' keys that nobody configured here."""

PUBLIC_NAMES = frozenset({"model_key", "idempotency_key"})
MIN_SECRET_LENGTH = 6


@functools.lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    """Kept by name: the same few dozen stand in every line."""
    return name not in PUBLIC_NAMES and SECRET_NAME.search(name) is not None


class Redactor:
    """Replaces known secrets and secret-looking names and shapes, at any depth of JSON values."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({s for s in secrets if len(s) >= MIN_SECRET_LENGTH}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    @classmethod
    def of(cls, config: RuntimeConfig) -> Redactor:
        """Knows the configuration's provider keys and API key."""
        return cls([*config.provider_keys.values(), config.api_key])

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        # How every alternative of SECRET_VALUE begins: three plain searches are far quicker than it.
        if "sk-" in text or "AIza" in text or "Bearer" in text:
            text = SECRET_VALUE.sub(REDACTED, text)
        return text

    def value(self, value: Any, name: str = "") -> Any:
        """The value without secrets; ``name`` is the key that it stands under."""
        if isinstance(value, str):
            if _is_secret_name(name):
                return REDACTED
            return self.text(value)
        # Before Mapping: an abstract class takes its time to say no, and most values are numbers.
        if value is None or isinstance(value, (int, float, bool)):
            return value
        if isinstance(value, Mapping):
            return {str(k): self.value(v, str(k)) for k, v in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.value(item, name) for item in value]
        return self.text(str(value))
