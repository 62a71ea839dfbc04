"""Which local models this runtime has: what the deployer loads is what the gateway may choose."""

from __future__ import annotations

from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from registries.specs import ModelSpec


def local_models(config: RuntimeConfig, catalog: Catalog) -> list[ModelSpec]:
    """Models that the runtime deploys: ``config.models``, else every enabled local entry.

    The embedded models are left out when no tier has one: they would hold memory for nobody.
    Raises NotFound for an unknown key, ValidationError for one that is not local.
    """
    embedded = bool(config.models) or any(
        catalog.get_model(key).is_embedded for key in catalog.tiers.values()
    )
    return [m for m in loadable_models(config, catalog) if embedded or not m.is_embedded]


def loadable_models(config: RuntimeConfig, catalog: Catalog) -> list[ModelSpec]:
    """Models that a process without a runtime can load on first use, where an unused one holds no memory.

    Raises as ``local_models`` does.
    """
    if not config.models:
        return [m for m in catalog.list_models() if m.is_local]
    chosen = [catalog.get_model(key) for key in config.models]
    for model in chosen:
        if not model.is_local:
            raise ValidationError(
                f"model {model.key!r} is not local (engine {model.engine}); it needs no loading",
                param="models",
            )
    return chosen
