"""Ports that stay free until they are bound, seconds later."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_IANA_DYNAMIC = (49152, 65535)
"""RFC 6335, section 6: what systems without that file hand out."""
_SEARCHED = range(20_000, 65_536)
"""Above the registered ports that servers of this field take, Ray's own 10002-19999 included."""
_SERVES_OWN = (range(30_000, 31_000), range(40_000, 41_000))
"""Where Ray Serve's replicas listen for HAProxy (RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT and _GRPC_PORT)."""


def free_ports(count: int) -> list[int]:
    """``count`` different ports that nobody holds and that the system gives to nobody who asks for any.

    A port from ``bind(0)`` lies where outgoing connections get theirs: HAProxy binds ten seconds later, when
    Ray has opened many connections, and each of them may have taken it.
    Raises OSError when the machine has no such ports and no others.
    """
    ephemeral = ephemeral_range()
    candidates = [p for p in _SEARCHED if p not in ephemeral and not any(p in own for own in _SERVES_OWN)]
    return choose(count, candidates, is_free, random.SystemRandom())


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


def ephemeral_range(setting: Path = _EPHEMERAL) -> range:
    """The ports that this system gives to outgoing connections and to ``bind(0)``."""
    try:
        low, high = (int(word) for word in setting.read_text().split())
    except (OSError, ValueError):
        low, high = _IANA_DYNAMIC
    return range(low, high + 1)


def choose(
    count: int, candidates: Sequence[int], free: Callable[[int], bool], chance: random.Random
) -> list[int]:
    """The first ``count`` of the candidates that are free, in random order: two starts at once differ.

    Where they do not suffice (a system may hand out every port from 1024 on), the system chooses the rest.
    """
    chosen: list[int] = []
    for port in chance.sample(candidates, len(candidates)):
        if len(chosen) == count:
            break
        if free(port):
            chosen.append(port)
    return chosen + _systems_choice(count - len(chosen))


def _systems_choice(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return numbers


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
