"""Renewals of leases that reach the hot tier too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from actors.stores.records import Lease, Renewal
from actors.stores.store import LeaseRenewer


class TouchingRenewer:
    """LeaseRenewer whose renewals reach the hot tier; it works in a thread, the tier on the event loop."""

    def __init__(
        self,
        renewer: LeaseRenewer,
        renewed: Callable[[Sequence[Lease], frozenset[Lease], float], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._renewer = renewer
        self._renewed = renewed
        self._loop = loop

    def renew(self, leases: Sequence[Lease], ttl_s: float) -> Renewal:
        """See LeaseRenewer."""
        renewal = self._renewer.renew(leases, ttl_s)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._renewed, leases, renewal.held, ttl_s)
        return renewal

    def close(self) -> None:
        """See LeaseRenewer."""
        self._renewer.close()
