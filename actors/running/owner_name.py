"""What a process calls itself in the leases that it holds."""

from __future__ import annotations

import os
import secrets

import ray

from registries.contracts.config import RuntimeConfig


def owner_name(config: RuntimeConfig) -> str:
    """Who holds a lease: runtime, node, process; unique, since a pid may come again."""
    node = ray.get_runtime_context().get_node_id()[:12]
    return f"{config.instance}:{node}:{os.getpid()}:{secrets.token_hex(4)}"
