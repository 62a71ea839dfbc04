from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.engines.table import ENGINE_LOADERS, engine_of, make_engine
from actors.engines.weights import resolve_weights, weights_bytes
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import CapacityError, ProviderError, ValidationError
from registries.specs import EngineName, ModelSpec


def spec(**fields: object) -> ModelSpec:
    settings = {"key": "m", "family": "f", "provider": "local", "engine": "vllm", "location": "x/y",
                "context_window": 128, "default_strategy": "optimized"}  # fmt: skip
    return ModelSpec.model_validate({**settings, **fields})


@pytest.fixture
def config(tmp_path: Path) -> RuntimeConfig:
    return RuntimeConfig(home=str(tmp_path / "home"), model_cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (path / "model.safetensors").write_bytes(b"12345")
    return path


def test_a_folder_is_taken_as_it_is(folder: Path, config: RuntimeConfig) -> None:
    assert resolve_weights(spec(location=str(folder)), config) == str(folder)
    assert weights_bytes(str(folder)) == 5


def test_a_hub_id_is_left_to_the_engine_unless_it_was_cached(
    folder: Path, config: RuntimeConfig, tmp_path: Path
) -> None:
    assert resolve_weights(spec(location="Qwen/Tiny-1.5"), config) == "Qwen/Tiny-1.5"
    assert weights_bytes("Qwen/Tiny-1.5") is None
    cached = tmp_path / "cache" / "Qwen"
    cached.mkdir(parents=True)
    folder.rename(cached / "Tiny-1.5")
    assert resolve_weights(spec(location="Qwen/Tiny-1.5"), config) == str(cached / "Tiny-1.5")


@pytest.mark.parametrize(
    ("broken", "words"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights")],
)
def test_an_incomplete_folder_names_what_is_missing(
    folder: Path, config: RuntimeConfig, broken: str, words: str
) -> None:
    (folder / broken).unlink()
    with pytest.raises(ValidationError, match=words) as caught:
        resolve_weights(spec(location=str(folder)), config)
    assert caught.value.param == "location"
    assert "model m" in caught.value.message


def test_a_corrupt_config_is_named(folder: Path, config: RuntimeConfig) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ValidationError, match="is no JSON"):
        resolve_weights(spec(location=str(folder)), config)


@pytest.mark.parametrize(
    "location", ["/nowhere", "./nowhere", "~/nowhere-at-all", "a/b/c", "embedded:nothing", "what is this"]
)
def test_a_place_that_does_not_exist(config: RuntimeConfig, location: str) -> None:
    with pytest.raises(ValidationError) as caught:
        resolve_weights(spec(location=location), config)
    assert caught.value.param == "location"
    assert location in caught.value.message


def test_the_local_engine_setting_decides_between_the_two(config: RuntimeConfig) -> None:
    for chosen in ("vllm", "transformers"):
        assert engine_of(spec(), config.model_copy(update={"local_engine": chosen})) == chosen
    assert engine_of(spec(engine="transformers"), config) == "transformers"
    assert (
        engine_of(spec(engine="scripted"), config.model_copy(update={"local_engine": "vllm"})) == "scripted"
    )
    with pytest.raises(ValidationError, match="allowed: auto, vllm, transformers"):
        engine_of(spec(), config.model_copy(update={"local_engine": "ollama"}))


@pytest.mark.parametrize("name", sorted(ENGINE_LOADERS))
def test_making_an_engine_loads_nothing(name: EngineName, config: RuntimeConfig) -> None:
    url = "http://127.0.0.1:1/v1" if name == "openai_compatible" else None
    engine = make_engine(spec(engine=name, base_url=url), config)
    assert engine.stats().running == 0


@pytest.mark.parametrize("name", ["vllm", "openai_compatible"])
def test_unknown_engine_options_are_refused_by_name(name: str, config: RuntimeConfig) -> None:
    with pytest.raises(ValidationError, match=r"\['tempo'\].*allowed") as caught:
        make_engine(spec(engine=name, base_url="http://x/v1", engine_options={"tempo": 1}), config)
    assert caught.value.param == "engine_options"


@pytest.mark.parametrize("name", ["vllm", "transformers"])
async def test_a_gpu_where_there_is_none_is_one_clear_error(
    name: str, folder: Path, config: RuntimeConfig
) -> None:
    from actors.gpu import read_gpus

    if read_gpus().devices:
        return
    local = config.model_copy(update={"local_engine": name})
    with pytest.raises(CapacityError, match="asks for 1 GPU") as caught:
        await make_engine(spec(engine=name, location=str(folder), scaling={"num_gpus": 1}), local).start()
    assert caught.value.param == "scaling.num_gpus"
    with pytest.raises(CapacityError, match="needs 4 GB of VRAM") as caught:
        await make_engine(spec(engine=name, location=str(folder), min_vram_gb=4), local).start()
    assert caught.value.param == "min_vram_gb"


@pytest.mark.parametrize("name", ["vllm", "transformers"])
async def test_a_call_before_the_start_is_refused(name: str, config: RuntimeConfig) -> None:
    from registries.contracts.engine import EngineCall
    from registries.contracts.generation import Message

    engine = make_engine(spec(engine=name), config.model_copy(update={"local_engine": name}))
    with pytest.raises(ProviderError, match="not loaded"):
        await engine.complete(EngineCall("r", "m", (Message(role="user", content="x"),), 1))
    await engine.shutdown()
