"""Registry entries of scripted models: what the shared cluster answers with."""

from __future__ import annotations

from typing import Any

from tests.chaos.engine.scale import scaled

NARROW_CALL_S, NARROW_SLOTS = 0.2, scaled(2, 4)
"""The model "narrow" answers so many calls at once, each in so long; twice as many may wait for it. Few, so
that ten times of it is bound by the model, not by the processors: 200 calls a second take half of two cores
that make 10 million additions in half a second."""


def scripted_model(key: str, answers: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A ModelSpec as JSON whose ModelReplica plays these answers."""
    entry: dict[str, Any] = {
        "key": key,
        "family": "scripted",
        "provider": "scripted",
        "engine": "scripted",
        "location": key,
        "context_window": 8192,
        "default_strategy": "optimized",
        "cost_profile": {"prompt_usd_per_mtok": 1.0, "completion_usd_per_mtok": 2.0},
        "scaling": {"num_cpus": 0.1, "max_ongoing_requests": 256},
        "engine_options": {"script": {"answers": answers, "echo": True}},
    }
    return {**entry, **changes}


SCRIPTED_MODELS: tuple[dict[str, Any], ...] = (
    scripted_model(
        "fast",
        [
            {"pattern": "Critique|critique", "texts": ["The answer is 85."]},
            {"pattern": "fault", "texts": ["I get 85. VERDICT: FAULT"]},
            {"pattern": "48 \\+ 37", "texts": ["The answer is 84."]},
        ],
    ),
    scripted_model("slow", [{"texts": ["one two three four five six seven eight"], "latency_s": 0.3}]),
    scripted_model("endless", [{"texts": ["word " * 2000], "tokens_per_s": 20}]),
    scripted_model("patient", [{"texts": ["here in the end"], "latency_s": 10.0}]),
    scripted_model("slow-start", [{"texts": ["here after all"], "latency_s": 4.0}]),
    scripted_model(
        "narrow",
        [],
        # The engine has a queue of its own, as real ones have: calls that wait in Serve's router, which looks
        # for room only now and then, leave a quarter of the slots empty.
        engine_options={
            "script": {
                "answers": [{"texts": ["The answer is 85."], "latency_s": NARROW_CALL_S}],
                "slots": NARROW_SLOTS,
            }
        },
        scaling={
            "num_cpus": 0.1,
            "max_ongoing_requests": 2 * NARROW_SLOTS,
            "max_queued_requests": NARROW_SLOTS,
        },
    ),
    scripted_model("broken", [{"faults": [{"kind": "bad_response", "times": None}]}]),
)
SCRIPTED_TIERS = {"light": "fast", "balanced": "fast", "strong": "fast"}
