"""Applications of a Serve config file."""

from __future__ import annotations

import pytest

from registries.contracts.errors import ValidationError
from serve_app.cluster_apps import cluster_config, refuse_unknown


def test_the_configuration_is_the_nodes_environment() -> None:
    config = cluster_config({"PARLEY_API_KEY": "k" * 20, "PARLEY_HOME": "/var/lib/parley"})
    assert (config.instance, config.home, config.api_key) == ("cluster", "/var/lib/parley", "k" * 20)


def test_a_providers_key_makes_it_the_default_as_parley_up_does() -> None:
    keys = {"OPENAI_API_KEY": "sk-0123456789abcdef", "NOBODYS_API_KEY": "sk-0123456789abcdef"}
    config = cluster_config({"PARLEY_API_KEY": "k" * 20, **keys})
    assert config.default_provider == "openai" and set(config.provider_keys) == {"OPENAI_API_KEY"}
    with pytest.raises(ValidationError, match="DEFAULT_PROVIDER='openai'"):
        cluster_config({"PARLEY_API_KEY": "k" * 20, "DEFAULT_PROVIDER": "openai"})


def test_a_cluster_makes_no_key_by_itself() -> None:
    with pytest.raises(ValidationError, match="PARLEY_API_KEY must be set"):
        cluster_config({})


def test_a_typo_in_args_is_named() -> None:
    refuse_unknown({"key": "nano-m"}, allowed=("key",))
    with pytest.raises(ValidationError, match=r"\['kee'\] are unknown; allowed: \['key'\]"):
        refuse_unknown({"kee": "nano-m"}, allowed=("key",))
