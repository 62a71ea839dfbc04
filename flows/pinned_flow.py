"""The version of a flow that a run is pinned to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from registries.contracts.errors import NotFound, ValidationError
from registries.specs import FlowSpec


def current_flow(get: Callable[[str], FlowSpec], name: str, version: str) -> FlowSpec | None:
    """The catalog's own object where it still is that version: graphs are kept for it."""
    try:
        current = get(name)
    except NotFound:
        return None
    return current if current.version == version else None


def kept_flow(name: str, version: str, document: Mapping[str, Any] | None) -> FlowSpec:
    """The version that a store kept; raises ValidationError (param flow_version) when it cannot be built."""
    try:
        return FlowSpec.model_validate(document)
    except pydantic.ValidationError as error:
        raise ValidationError(
            f"version {version} of flow {name!r} cannot be read by this runtime", param="flow_version"
        ) from error
