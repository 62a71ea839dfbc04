from __future__ import annotations

import pytest

from actors.local_models import loadable_models, local_models
from actors.readiness import Part
from actors.runtime import needs_remote_adapter, runtime_parts
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import NotFound, ValidationError
from registries.loader import load_catalog
from tests.scripted_models import scripted_model

REMOTE = scripted_model("far", [], engine="litellm", location="openai/far", provider="openai")


def config(*extra: dict[str, object], models: tuple[str, ...] = ()) -> RuntimeConfig:
    return RuntimeConfig(home="/nowhere", extra_models=extra, models=models)


def loaded(settings: RuntimeConfig) -> set[str]:
    return {model.key for model in local_models(settings, load_catalog(settings))}


def test_every_enabled_local_entry_is_loaded_unless_some_are_named() -> None:
    assert loaded(config()) == {"nano-m", "nano-s"}
    assert loaded(config(scripted_model("own", []), models=("own",))) == {"own"}


def test_embedded_models_that_no_tier_uses_are_not_loaded() -> None:
    own = config(scripted_model("own", []))
    assert loaded(own) == {"own"}
    assert loaded(config(REMOTE)) == set()
    mixed = own.model_copy(update={"tiers": {"light": "nano-s", "balanced": "own", "strong": "own"}})
    assert loaded(mixed) == {"nano-m", "nano-s", "own"}


def test_without_a_runtime_embedded_models_may_be_loaded_whatever_the_tiers_say() -> None:
    settings = config(REMOTE)
    assert {m.key for m in loadable_models(settings, load_catalog(settings))} == {"nano-m", "nano-s"}
    named = config(scripted_model("own", []), models=("own", "nano-s"))
    assert {m.key for m in loadable_models(named, load_catalog(named))} == {"own", "nano-s"} == loaded(named)


def test_names_that_cannot_be_loaded_are_refused() -> None:
    with pytest.raises(NotFound, match="nano-"):
        local_models(config(models=("nano-x",)), load_catalog(config()))
    remote = config(REMOTE, models=("far",))
    with pytest.raises(ValidationError, match="litellm") as refused:
        local_models(remote, load_catalog(remote))
    assert refused.value.param == "models"


def test_the_adapter_is_a_part_only_where_a_model_needs_it() -> None:
    plain = config(scripted_model("own", []), models=("own",))
    assert not needs_remote_adapter(load_catalog(plain))
    assert runtime_parts(plain, load_catalog(plain)) == [Part("api", "parley"), Part("own", "model-own")]
    remote = config(REMOTE, scripted_model("own", []), models=("own",))
    assert runtime_parts(remote, load_catalog(remote))[-1] == Part("remote-adapter", "remote-adapter")
