"""The store with Redis in front of it, where one is configured."""

from __future__ import annotations

from actors.stores.store import Store
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ParleyError, ValidationError


async def with_hot_tier(store: Store, config: RuntimeConfig) -> Store:
    """The same store, mirrored when ``config.redis_url`` is set; Redis need not be up, now or ever.

    Takes the store over: it is closed when this fails. Raises ValidationError (param redis_url) for a URL
    that cannot be read, and without the package.
    """
    if not config.redis_url:
        return store
    try:
        # Imported here: it needs an extra that an embedded installation does not have.
        from actors.stores.mirrored_store import MirroredStore

        return MirroredStore(store, config.redis_url, config.instance)
    except ModuleNotFoundError as error:
        await store.close()
        raise ValidationError(
            f"redis_url needs the package {error.name}: pip install 'parley-runtime[redis]'",
            param="redis_url",
        ) from None
    except ParleyError:
        await store.close()
        raise
