"""The gateway of a process inside the cluster."""

from __future__ import annotations

from collections.abc import Callable

from actors.gateway.observer import GatewayObserver
from actors.gateway.provider_gateway import ProviderGateway
from actors.gateway.serve_providers import serve_providers
from actors.gateway.state_actor import breaker_policy, ensure_gateway_state
from actors.gateway.state_client import StateClient
from actors.gateway.state_link import RayStateLink
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig


async def open_gateway(
    config: RuntimeConfig,
    catalog: Catalog,
    *,
    observer: GatewayObserver | None = None,
    traceparent: Callable[[], str | None] = lambda: None,
) -> ProviderGateway:
    """A gateway that follows GatewayState (made if there is none) and calls replicas by their handles.

    Open it in the event loop that will use it, once a process; end it with aclose(). A GatewayState that
    cannot be reached is no error: the process starts with breakers of its own and joins later.
    """
    board = StateClient(
        RayStateLink(lambda: ensure_gateway_state(config)), breaker_policy(config), observer=observer
    )
    await board.start()
    return ProviderGateway(catalog, config, serve_providers(config), board, observer, traceparent=traceparent)
