"""What nodes can do: one file a kind, one table, and the one way to run a node anywhere."""

from flows.nodes.run_payload import run_payload
from flows.nodes.table import NODE_KINDS, NodeKind, register_node

__all__ = ["NODE_KINDS", "NodeKind", "register_node", "run_payload"]
