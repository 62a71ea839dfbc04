"""A place whose only model plays a script: for tests in which only processes and runs matter."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.place import Place

OWN_KEY, FOREIGN_KEY = "my-own-key-0123456789", "sk-canary-0123456789"
_CALL_S = 2.0
"""What every call of the model takes: long enough that a fault finds runs half-way, also one that is a typed
command, which imports for seconds on a slow machine."""
_MODELS = f"""
tiers: {{light: actor, balanced: actor, strong: actor}}
models:
  - key: actor
    family: general
    provider: local
    engine: scripted
    location: inline
    context_window: 4096
    default_strategy: optimized
    cost_profile: {{prompt_usd_per_mtok: 1.0, completion_usd_per_mtok: 2.0}}
    engine_options: {{script: {{answers: [{{texts: ["It is 85."], latency_s: {_CALL_S}}}]}}}}
"""


def scripted_place(folder: Path) -> Place:
    """Its home has a blank in its name, as homes may; its models are in ``folder / "catalog"``."""
    catalog = folder / "catalog"
    catalog.mkdir()
    (catalog / "models.yaml").write_text(_MODELS)
    return Place(folder / "a home", PARLEY_CATALOG_DIRS=str(catalog), PARLEY_MODELS="actor")
