"""From a registry entry to the Completer that answers for it, and to its breaker's key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import Completer, Engine
from registries.specs import ModelSpec

MODEL_DEPLOYMENT = "ModelReplica"
REMOTE_APP = "remote-adapter"
REMOTE_DEPLOYMENT = "RemoteAdapter"


class Providers(Protocol):
    """Completers by registry entry."""

    def completer(self, spec: ModelSpec) -> Completer:
        """The Completer of this entry; cheap, never waits."""
        ...

    def is_ready(self, spec: ModelSpec) -> bool:
        """Whether ``ready`` would not wait."""
        ...

    async def ready(self, spec: ModelSpec) -> None:
        """Wait for the entry's engine, where it lives in this process; raises what its start raises."""
        ...

    async def aclose(self) -> None:
        """End engines of this process; idempotent."""
        ...


class ProviderTable:
    """Completers made on first use by ``make`` and kept; in-process ones are closed with the table."""

    def __init__(self, make: Callable[[ModelSpec], Completer]) -> None:
        self._make = make
        self._completers: dict[str, Completer] = {}

    def completer(self, spec: ModelSpec) -> Completer:
        """See Providers."""
        found = self._completers.get(spec.key)
        if found is None:
            found = self._completers[spec.key] = self._make(spec)
        return found

    def is_ready(self, spec: ModelSpec) -> bool:
        """See Providers."""
        completer = self.completer(spec)
        return bool(getattr(completer, "is_up", not hasattr(completer, "started")))

    async def ready(self, spec: ModelSpec) -> None:
        """See Providers; a replica's engine is Serve's business."""
        started = getattr(self.completer(spec), "started", None)
        if started is not None:
            await started()

    async def aclose(self) -> None:
        """See Providers."""
        completers, self._completers = self._completers, {}
        for completer in completers.values():
            close = getattr(completer, "aclose", None)
            if close is not None:
                await close()


def breaker_key(spec: ModelSpec) -> str:
    """Provider, endpoint and credential: what fails together rests together.

    A local model's endpoint is its own deployment. Of a URL only scheme, host, port and path are used, so
    that no password in it reaches a log.
    """
    if spec.is_local:
        return f"local/{spec.key}"
    endpoint = "default"
    if spec.base_url:
        parts = urlsplit(spec.base_url)
        port = f":{parts.port}" if parts.port else ""
        endpoint = f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"
    credential = f"#{spec.api_key_env}" if spec.api_key_env else ""
    return f"{spec.provider}/{endpoint}{credential}"


def engine_in_process(spec: ModelSpec, config: RuntimeConfig) -> Completer:
    """The entry's engine inside this process."""
    from actors.engines.table import make_engine
    from actors.gateway.engine_completer import EngineCompleter

    def make() -> Engine:
        return make_engine(spec, config)

    return EngineCompleter(make)
