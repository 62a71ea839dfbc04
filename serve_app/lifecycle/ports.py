"""The ports that somebody chose, and who holds one that is not free."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from actors.free_ports import is_free
from registries.contracts.errors import Conflict


@dataclass(frozen=True, slots=True)
class WantedPort:
    """A port that somebody chose, and the words that name the choice."""

    number: int
    purpose: str
    option: str
    variable: str


def holder_of(port: int) -> str | None:
    """ "name (pid N)" of who has it, before others who listens there; None when the system does not tell."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, OSError):
        return None
    holders = [
        (connection.status != psutil.CONN_LISTEN, connection.pid)
        for connection in connections
        if connection.laddr and connection.laddr.port == port and connection.pid is not None
    ]
    return _named(min(holders)[1]) if holders else None


def _named(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"


def check_ports(wanted: list[WantedPort]) -> None:
    """Raise one Conflict that names every port in use, its holder, and the option that changes it."""
    taken = [want for want in wanted if not is_free(want.number)]
    if not taken:
        return
    lines = [
        f"port {want.number} ({want.purpose}) is in use by {holder_of(want.number) or 'another process'}. "
        f"Choose another one with {want.option} N or {want.variable}=N"
        for want in taken
    ]
    raise Conflict("\n".join(lines), param=taken[0].variable)
