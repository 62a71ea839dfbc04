"""The flow that a stored run is pinned to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.stores.store import RunStore
from flows.pinned_flow import current_flow, kept_flow
from registries.catalog import Catalog
from registries.contracts.errors import Conflict, ValidationError
from registries.specs import FlowSpec


async def pinned_flow(store: RunStore, catalog: Catalog, row: Mapping[str, Any]) -> FlowSpec:
    """The catalog's own object where it still is that version, else the one that the store kept.

    ``row`` as of Store.get. Raises Conflict when this runtime cannot build that version, StoreError.
    """
    name, version = row["flow"], row["flow_version"]
    current = current_flow(catalog.flows.get, name, version)
    if current is not None:
        return current
    try:
        return kept_flow(name, version, await store.flow_spec(version))
    except ValidationError as error:
        raise Conflict(error.message, param=error.param) from None
