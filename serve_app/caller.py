"""On whose behalf a request comes: the one place that real users will come into."""

from __future__ import annotations

from dataclasses import dataclass

from registries.contracts.runs import RunOrder


@dataclass(frozen=True, slots=True)
class Caller:
    """Tenant and user. One key means one tenant and its administrator: the contract's defaults."""

    tenant: str = RunOrder.model_fields["tenant"].default
    user: str = RunOrder.model_fields["user"].default


def caller_of() -> Caller:
    """The caller of the request under way."""
    return Caller()
