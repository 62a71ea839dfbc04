"""Whether a port is free, and who holds it when it is not."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import psutil

from registries.contracts.errors import Conflict


@dataclass(frozen=True, slots=True)
class WantedPort:
    """A port that somebody chose, and the words that name the choice."""

    number: int
    purpose: str
    option: str
    variable: str


def is_free(port: int) -> bool:
    """Whether nobody listens there, on any address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it, connections of a server that just ended (TIME_WAIT) would count as a holder.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
            probe.listen(1)
        except OSError:
            return False
        return True


def holder_of(port: int) -> str | None:
    """ "name (pid N)" of who listens there; None when nobody does or the system does not tell."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, OSError):
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            return _named(connection.pid)
    return None


def _named(pid: int | None) -> str | None:
    if pid is None:
        return None
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
