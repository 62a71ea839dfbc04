"""From settings to one configuration, checked against the registries."""

from __future__ import annotations

from pathlib import Path

import pytest

from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from serve_app.lifecycle.compose_config import changed_fields, compose_config, read_config
from serve_app.lifecycle.runtime_home import RuntimeHome, write_private
from serve_app.settings import load_settings

KEY = "sk-0123456789abcdef"


@pytest.fixture
def home(tmp_path: Path) -> RuntimeHome:
    made = RuntimeHome(tmp_path / "home")
    made.ensure()
    return made


def composed(home: RuntimeHome, **env: str) -> RuntimeConfig:
    return compose_config(load_settings({"PARLEY_HOME": str(home.path), **env}, None), home, instance="i")


def test_without_keys_the_embedded_models_have_every_tier(home: RuntimeHome) -> None:
    config = composed(home)
    assert config.default_provider == "local" and config.tiers == {}
    assert config.api_key == home.admin_key()


def test_an_own_key_goes_before_the_file(home: RuntimeHome) -> None:
    assert composed(home, PARLEY_API_KEY="0123456789abcdef").api_key == "0123456789abcdef"


def test_a_providers_key_makes_it_the_default(home: RuntimeHome) -> None:
    assert composed(home, ANTHROPIC_API_KEY=KEY).default_provider == "anthropic"
    assert composed(home, ANTHROPIC_API_KEY=KEY, DEFAULT_PROVIDER="local").default_provider == "anthropic"


def test_with_two_keys_the_named_provider_is_used(home: RuntimeHome) -> None:
    config = composed(home, ANTHROPIC_API_KEY=KEY, OPENAI_API_KEY=KEY, DEFAULT_PROVIDER="anthropic")
    assert config.default_provider == "anthropic"


def test_a_named_provider_takes_the_tiers_from_an_own_model(home: RuntimeHome) -> None:
    config = composed(home, PARLEY_MODEL="Qwen/Q", OPENAI_API_KEY=KEY, DEFAULT_PROVIDER="openai")
    assert config.tiers["strong"].startswith("gpt")


def test_a_provider_without_its_key_is_refused_with_the_keys_name(home: RuntimeHome) -> None:
    with pytest.raises(ValidationError, match=r"DEFAULT_PROVIDER='openai'.*OPENAI_API_KEY"):
        composed(home, DEFAULT_PROVIDER="openai")


def test_unknown_names_are_refused_all_at_once(home: RuntimeHome) -> None:
    with pytest.raises(ValidationError) as caught:
        composed(home, DEFAULT_PROVIDER="nobody", PARLEY_MODELS="gpt-5.6")
    assert "DEFAULT_PROVIDER='nobody'" in caught.value.message
    assert "PARLEY_MODELS='gpt-5.6'" in caught.value.message and "nano-m" in caught.value.message


def test_an_unknown_strategy_is_refused(home: RuntimeHome) -> None:
    with pytest.raises(ValidationError, match=r"nostrategy.*optimized"):
        composed(home, DEFAULT_STRATEGY="nostrategy")


def test_only_keys_that_a_model_asks_for_travel(home: RuntimeHome) -> None:
    config = composed(home, OPENAI_API_KEY=KEY, UNRELATED_API_KEY=KEY)
    assert set(config.provider_keys) == {"OPENAI_API_KEY"}


def test_what_changed_is_named_without_values(home: RuntimeHome) -> None:
    before = composed(home)
    write_private(home.config_file, before.model_dump_json())
    running = read_config(home)
    assert running is not None
    assert changed_fields(running, composed(home)) == []
    assert changed_fields(running, composed(home, PORT="9000", OPENAI_API_KEY=KEY)) == [
        "default_provider",
        "http_port",
        "provider_keys",
    ]


def test_a_damaged_configuration_is_none(home: RuntimeHome) -> None:
    assert read_config(home) is None
    home.config_file.write_text("{")
    assert read_config(home) is None


def test_flows_that_cannot_run_are_refused_before_ray_starts(home: RuntimeHome, tmp_path: Path) -> None:
    flows = tmp_path / "own" / "flows"
    flows.mkdir(parents=True)
    text = "name: odd\nnodes:\n  - {id: a, kind: dance, role: r}\noutput: {answer: [a]}\n"
    (flows / "odd.yaml").write_text(text)
    with pytest.raises(ValidationError, match="unknown node kind 'dance'"):
        composed(home, PARLEY_CATALOG_DIRS=str(tmp_path / "own"))
