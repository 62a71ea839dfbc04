"""How many connections to PostgreSQL one process may open: pool_min and pool_max are a whole node's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError

Role = Literal["ingress", "runner", "tool"]
"""Which process opens the store. Tools are the deployer, the commands and backups: one at a time."""

TOOL_CONNECTIONS = 2
LEAST_CONNECTIONS = 2
"""One that writes and one that reads: with a common one a long read would hold up every commit."""
RENEWER_CONNECTIONS = 1
"""A runner's leases are renewed over a connection outside its pool."""

NEAR_S = 0.0005
"""A round trip to a server on the same machine takes a tenth of this, in the same room the whole of it."""
MOST_LANES = 4


@dataclass(frozen=True, slots=True)
class ConnectionShare:
    """Connections that a process keeps open, and how many it may open at most (a renewer's not counted)."""

    minimum: int
    maximum: int

    def lanes(self, round_trip_s: float) -> int:
        """Threads that write, each with a connection; the others read.

        One is for what belongs to no run (claims, pruning), so that it never holds up a run's commit. Runs
        have one more on a near server: larger groups cost a third less CPU a run (measured, 32 at once: 2.6
        ms with one, 3.6 with two or four). On a far one round trips overlap in several.
        """
        writers = self.maximum - max(1, self.maximum // 2)
        return min(writers, 2 if round_trip_s < NEAR_S else 1 + MOST_LANES)


@dataclass(frozen=True, slots=True)
class ServerRoom:
    """A server's limit, what of it is kept for superusers, and what others hold now."""

    max_connections: int
    reserved: int
    held: int


def connection_share(config: RuntimeConfig, role: Role) -> ConnectionShare:
    """This process's part of the node's connections.

    Serve may place every replica on one node, so a node's connections are divided by all that there can be.
    Raises ValidationError (param pool_max) when they are too few for so many processes.
    """
    runners, ingresses = config.runner_max_replicas, config.ingress_max_replicas
    outside = TOOL_CONNECTIONS + runners * RENEWER_CONNECTIONS
    each = (config.pool_max - outside) // (runners + ingresses)
    if each < LEAST_CONNECTIONS:
        needed = outside + LEAST_CONNECTIONS * (runners + ingresses)
        raise ValidationError(
            f"PARLEY_POOL_MAX={config.pool_max} connections a node are too few for {runners} runners and"
            f" {ingresses} ingresses, which need {needed}. Raise it, or lower PARLEY_MAX_RUNNERS",
            param="pool_max",
        )
    if role == "tool":
        return ConnectionShare(1, TOOL_CONNECTIONS)
    return ConnectionShare(max(1, min(each, each * config.pool_min // config.pool_max)), each)


def require_room(room: ServerRoom, pool_max: int, nodes: int) -> None:
    """Raise ValidationError (param pool_max) with the figures when the server cannot hold all the pools."""
    free = room.max_connections - room.reserved - room.held
    wanted = pool_max * nodes
    if wanted > free:
        raise ValidationError(
            f"the PostgreSQL server has {max(0, free)} free connections (max_connections"
            f" {room.max_connections}, {room.reserved} reserved, {room.held} held by others);"
            f" {nodes} node{'s' if nodes != 1 else ''} with PARLEY_POOL_MAX={pool_max} may open {wanted}."
            " Raise max_connections, or lower PARLEY_POOL_MAX",
            param="pool_max",
        )
