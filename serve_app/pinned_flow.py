"""The flow that a stored run is pinned to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from actors.stores.store import RunStore
from registries.catalog import Catalog
from registries.contracts.errors import Conflict, NotFound
from registries.specs import FlowSpec


async def pinned_flow(store: RunStore, catalog: Catalog, row: Mapping[str, Any]) -> FlowSpec:
    """The catalog's own object where it still is that version, else the one that the store kept.

    ``row`` as of Store.get. Raises Conflict when this runtime cannot build that version, StoreError.
    """
    try:
        current = catalog.flows.get(row["flow"])
        if current.version == row["flow_version"]:
            return current
    except NotFound:
        pass
    spec = await store.flow_spec(row["flow_version"])
    try:
        return FlowSpec.model_validate(spec)
    except pydantic.ValidationError:
        which = f"version {row['flow_version']} of flow {row['flow']!r}"
        raise Conflict(f"this runtime cannot read {which}", param="flow_version") from None
