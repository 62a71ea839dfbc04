"""The gateway without a cluster."""

from __future__ import annotations

from collections.abc import Callable

from actors.gateway.breaker import BreakerPolicy
from actors.gateway.breaker_board import LocalBoard
from actors.gateway.observer import GatewayObserver
from actors.gateway.provider_gateway import ProviderGateway
from actors.gateway.providers import ProviderTable, engine_in_process
from actors.local_models import loadable_models
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.engine import Completer
from registries.specs import ModelSpec


async def local_gateway(
    config: RuntimeConfig,
    catalog: Catalog,
    *,
    observer: GatewayObserver | None = None,
    make: Callable[[ModelSpec], Completer] | None = None,
) -> ProviderGateway:
    """Engines inside this process, started on first use (``parley direct``, tests); end it with aclose().

    ``make`` replaces the engines' table (tests put fakes there).
    """
    providers = ProviderTable(make or (lambda spec: engine_in_process(spec, config)))
    policy = BreakerPolicy(config.breaker.max_failures, config.breaker.timeout_s)
    board = LocalBoard(policy, observer=observer)
    loaded = loadable_models(config, catalog)
    return ProviderGateway(catalog, config, providers, board, observer, loaded=loaded)
