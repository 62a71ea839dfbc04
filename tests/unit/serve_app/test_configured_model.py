"""PARLEY_MODEL: an id, a folder, a name at an endpoint, or a clear refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.selection import Selector
from actors.local_models import local_models
from registries.contracts.errors import ValidationError
from registries.contracts.generation import GenerationRequest
from registries.loader import load_catalog
from registries.specs import ModelSpec
from serve_app.configured_model import configured_model
from serve_app.settings import load_settings


def made(
    model: str, url: str | None = None, context: int | None = None, cache_dir: str = "/none"
) -> ModelSpec:
    return configured_model(
        model, url=url, family="general", context=context, strategy="optimized", cache_dir=cache_dir
    )


def folder_with(tmp_path: Path, config: object) -> Path:
    (tmp_path / "my model").mkdir()
    (tmp_path / "my model" / "config.json").write_text(json.dumps(config))
    return tmp_path / "my model"


def test_a_hub_id_is_local_with_a_small_context() -> None:
    spec = made("Qwen/Qwen3-0.6B")
    assert (spec.key, spec.location, spec.engine) == ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "vllm")
    assert spec.is_local and spec.context_window == 4096


def test_a_folder_tells_its_context(tmp_path: Path) -> None:
    spec = made(str(folder_with(tmp_path, {"max_position_embeddings": 512})))
    assert spec.key == "my-model" and spec.context_window == 512
    assert Path(spec.location).is_absolute()


def test_a_nested_text_config_is_read(tmp_path: Path) -> None:
    assert (
        made(str(folder_with(tmp_path, {"text_config": {"max_position_embeddings": 777}}))).context_window
        == 777
    )


def test_a_downloaded_id_tells_its_context(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Qwen--Q" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"max_position_embeddings": 1234}')
    assert made("Qwen/Q", cache_dir=str(tmp_path)).context_window == 1234


def test_an_explicit_context_wins(tmp_path: Path) -> None:
    assert made(str(folder_with(tmp_path, {"max_position_embeddings": 512})), context=64).context_window == 64


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/.no-such-model"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(ValidationError, match=r"no config\.json in") as caught:
        made(name)
    assert name in caught.value.message and caught.value.param == "PARLEY_MODEL"


def test_a_folder_of_somebody_unknown_is_named() -> None:
    with pytest.raises(ValidationError, match="no home directory") as caught:
        made("~nobody-here/model")
    assert "'~nobody-here/model'" in caught.value.message and caught.value.param == "PARLEY_MODEL"


@pytest.mark.parametrize("name", ["a" * 300, "/" + "a" * 300])
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot be looked at") as caught:
        made(name)
    assert caught.value.param == "PARLEY_MODEL"


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_broken_config_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValidationError, match=r"config\.json"):
        made(str(tmp_path))


def test_an_impossible_id_is_refused() -> None:
    with pytest.raises(ValidationError, match="Hugging Face id"):
        made("what is this?")


def test_an_endpoint_on_this_machine_costs_nothing_another_one_costs_unknown() -> None:
    assert made("llama3.2", "http://localhost:11434/v1").cost_profile.prompt_usd_per_mtok == 0
    remote = made("llama3.2", "https://models.example.com/v1")
    assert remote.cost_profile.prompt_usd_per_mtok is None
    assert remote.engine == "openai_compatible"


@given(st.from_regex(r"[A-Za-z0-9:._/+ -]{1,120}", fullmatch=True))
def test_any_name_of_an_endpoints_model_becomes_a_valid_key(name: str) -> None:
    assert made(name, "http://127.0.0.1:1/v1").location == name


def test_an_own_model_is_the_only_one_that_is_loaded_and_names_the_provider() -> None:
    config = load_settings({"PARLEY_MODEL": "Qwen/Qwen3-0.6B"}, None).runtime_config()
    assert config.default_provider == "local"
    assert [model.key for model in local_models(config, load_catalog(config))] == ["Qwen/Qwen3-0.6B"]
    url = {"PARLEY_MODEL": "m", "PARLEY_MODEL_URL": "http://127.0.0.1:8000/v1/"}
    config = load_settings(url, None).runtime_config()
    assert config.default_provider == "openai_compatible"
    assert local_models(config, load_catalog(config)) == []
    assert config.extra_models[0]["base_url"] == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize("key", [None, "sk-mine"])
def test_an_endpoint_is_asked_with_its_key_or_without_one(key: str | None) -> None:
    env = {"PARLEY_MODEL": "m", "PARLEY_MODEL_URL": "http://127.0.0.1:8000/v1"}
    settings = load_settings(env | ({"PARLEY_MODEL_API_KEY": key} if key else {}), None)
    config = settings.runtime_config(instance="x", api_key="k" * 32)
    selector = Selector(load_catalog(config), config)
    for wanted in (None, "m", "tier:light", "tier:strong"):
        request = GenerationRequest(prompt="How are you?", model_key=wanted)
        assert selector.choose(request).models[0].key == "m"
    spec = load_catalog(config).get_model("m")
    assert spec.api_key_env == ("PARLEY_MODEL_API_KEY" if key else None)
