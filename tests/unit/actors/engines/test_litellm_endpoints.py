from __future__ import annotations

from typing import Any

import pytest

from actors.engines.litellm_endpoints import NO_KEY, Endpoint, litellm_endpoints, provider_endpoint
from registries.contracts.config import RuntimeConfig
from tests.unit.actors.gateway.played import model

KEYS = {
    "OPENAI_API_KEY": "k-openai",
    "ANTHROPIC_API_KEY": "k-anthropic",
    "GOOGLE_API_KEY": "k-google",
    "LITELLM_MASTER_KEY": "k-master",
    "LITELLM_PROXY_URL": "http://proxy",
    "MY_API_KEY": "k-mine",
}


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        ("gpt-4o", (None, "k-openai")),
        ("openai/gpt-4o", (None, "k-openai")),
        ("anthropic/claude", (None, "k-anthropic")),
        ("gemini/pro", (None, "k-google")),
        ("litellm_proxy/x", ("http://proxy", "k-master")),
        ("groq/x", (None, "")),
    ],
)
def test_each_provider_gets_its_own_key(name: str, endpoint: Endpoint) -> None:
    assert provider_endpoint(name, KEYS) == endpoint


@pytest.mark.parametrize(
    ("fields", "endpoint"),
    [
        ({}, (None, "k-openai")),
        ({"api_key_env": "MY_API_KEY"}, (None, "k-mine")),
        ({"api_key_env": "MY_API_KEY", "base_url": "http://own"}, ("http://own", "k-mine")),
        # never the public provider's key, neither to a URL of one's own nor in the place of one's own
        ({"base_url": "http://own"}, ("http://own", NO_KEY)),
        ({"api_key_env": "UNSET_API_KEY", "base_url": "http://own"}, ("http://own", NO_KEY)),
        ({"location": "litellm_proxy/x", "api_key_env": "MY_API_KEY"}, ("http://proxy", "k-mine")),
    ],
)
def test_an_entry_has_the_endpoint_that_it_names(fields: dict[str, Any], endpoint: Endpoint) -> None:
    settings = {"engine": "litellm", "location": "openai/gpt-4o", "base_url": None, **fields}
    specs = [model("m", **settings), model("other")]
    assert litellm_endpoints(specs, RuntimeConfig(home="h", provider_keys=KEYS)) == {"m": endpoint}
