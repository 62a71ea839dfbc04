"""Python's cyclic garbage collector, set for a server process."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 10_000
"""Objects made, and not yet freed, between two collections of the young; Python's own default is 700.

A durable run leaves some thousand objects behind for a moment, nearly all freed by their reference counts:
with the default the collector looked several times a run and took a tenth of the runner's CPU."""
OLDER_ROUNDS = 20
"""Collections of a generation before the next older one is looked at as well; Python's default is 10."""


def settle_heap() -> None:
    """Keep the collector away from all that is alive now; call it once, when the process is set up.

    Modules, schemas and graphs (hundreds of thousands of objects) live as long as the process: looking
    through them again and again finds nothing. Blocks for one full collection.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, OLDER_ROUNDS, OLDER_ROUNDS)
