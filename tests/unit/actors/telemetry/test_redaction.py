from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from actors.telemetry.redaction import REDACTED, Redactor
from registries.contracts.config import RuntimeConfig

CANARY = "canary-4711-secret"
REDACTOR = Redactor.of(
    RuntimeConfig(home="/x", provider_keys={"OPENAI_API_KEY": CANARY}, api_key="pk-own-key")
)

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=10).map(lambda t: f"{t}{CANARY}{t}")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(json_values)
def test_no_configured_secret_survives_at_any_depth(value: object) -> None:
    assert CANARY not in json.dumps(REDACTOR.value(value), ensure_ascii=False)


def test_names_shapes_and_what_is_no_secret() -> None:
    facts = {
        "api_key": "short",
        "X-API-Key": "whatever",
        "authorization": "Bearer abc",
        "max_tokens": 12,
        "prompt_tokens": 3,
        "model_key": "nano-m",
        "text": "use sk-abcdefghijklmnop and Bearer abcdefgh1234",
        "nested": [{"password": "p"}, "pk-own-key!"],
    }
    clean = REDACTOR.value(facts)
    assert clean["api_key"] == clean["X-API-Key"] == clean["authorization"] == REDACTED
    assert (clean["max_tokens"], clean["prompt_tokens"], clean["model_key"]) == (12, 3, "nano-m")
    assert clean["text"] == f"use {REDACTED} and {REDACTED}"
    assert clean["nested"] == [{"password": REDACTED}, f"{REDACTED}!"]


def test_short_settings_are_no_secrets() -> None:
    assert Redactor(["dev", ""]).text("a device") == "a device"
