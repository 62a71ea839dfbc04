"""The catalog is built from files and settings, and whatever is wrong is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from registries.loader import load_catalog

EXTRA: dict[str, object] = {
    "key": "mine",
    "family": "qwen",
    "provider": "local",
    "engine": "transformers",
    "location": "Qwen/Some-Model",
    "context_window": 4096,
    "default_strategy": "optimized",
}


def config(**values: Any) -> RuntimeConfig:
    return RuntimeConfig(home="", **values)


def write(folder: Path, **files: str) -> RuntimeConfig:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return config(catalog_dirs=(str(folder),))


def problems_of(settings: RuntimeConfig) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        load_catalog(settings)
    problems: list[str] = caught.value.context["problems"]
    assert all(problem in caught.value.message for problem in problems)
    return problems


def test_the_package_alone_has_two_models_four_flows_and_the_default_strategy() -> None:
    catalog = load_catalog()
    assert [model.key for model in catalog.list_models()] == ["nano-m", "nano-s"]
    assert catalog.flows.names() == ["challenge", "linear", "multi_perspective", "reviewed_challenge"]
    assert catalog.strategies.get("optimized").sampling.temperature == 0
    assert catalog.tiers == {"light": "nano-s", "balanced": "nano-m", "strong": "nano-m"}


def test_the_same_contents_have_the_same_digest_and_others_another() -> None:
    assert load_catalog().digest == load_catalog().digest
    assert load_catalog().digest != load_catalog(config(local_engine="transformers")).digest


def test_a_local_engine_setting_changes_local_models_only() -> None:
    catalog = load_catalog(config(local_engine="transformers"))
    assert {m.engine for m in catalog.models if m.provider == "local"} == {"transformers"}
    assert catalog.get_model("gpt-5.6").engine == "litellm"


@pytest.mark.parametrize(
    "url", ["http://me:canary@h/v1", "http://me:canary/x@h/v1", "https://:canary@h:99999"]
)
def test_a_url_with_a_password_is_a_problem_of_its_entry_and_shown_without_it(url: str) -> None:
    entry = {**EXTRA, "engine": "openai_compatible", "base_url": url}
    (problem,) = problems_of(config(extra_models=(entry,)))
    assert "(mine): base_url:" in problem and "canary" not in problem


def test_a_provider_key_enables_its_models_and_takes_the_tiers() -> None:
    catalog = load_catalog(config(provider_keys={"ANTHROPIC_API_KEY": "secret"}))
    assert catalog.tiers == {
        "light": "claude-haiku-5-5",
        "balanced": "claude-sonnet-5-5",
        "strong": "claude-opus-5-5",
        "judge": "claude-opus-5-5",
    }
    assert not catalog.get_model("gpt-5.6").enabled


def test_an_empty_key_enables_nothing() -> None:
    assert load_catalog(config(provider_keys={"OPENAI_API_KEY": ""})).tiers["strong"] == "nano-m"


def test_the_default_provider_comes_first_among_several_keys() -> None:
    keys = {"OPENAI_API_KEY": "a", "GOOGLE_API_KEY": "b"}
    assert load_catalog(config(provider_keys=keys)).tiers["strong"] == "gpt-5.6"
    catalog = load_catalog(config(provider_keys=keys, default_provider="google"))
    assert catalog.tiers["strong"] == "gemini-3.1-pro"


def test_a_model_given_by_hand_takes_the_tiers_even_beside_a_key() -> None:
    catalog = load_catalog(config(extra_models=(EXTRA,), provider_keys={"OPENAI_API_KEY": "a"}))
    assert {catalog.tiers[tier] for tier in ("light", "balanced", "strong")} == {"mine"}


def test_explicit_tiers_win() -> None:
    catalog = load_catalog(config(extra_models=(EXTRA,), tiers={"light": "nano-s"}))
    assert catalog.tiers == {"light": "nano-s", "balanced": "mine", "strong": "mine"}


def test_tiers_of_a_catalog_folder_win_over_what_a_key_would_choose(tmp_path: Path) -> None:
    settings = write(tmp_path, models="tiers: {strong: nano-s}\n")
    catalog = load_catalog(settings.model_copy(update={"provider_keys": {"OPENAI_API_KEY": "a"}}))
    assert catalog.tiers["strong"] == "nano-s"
    assert catalog.tiers["light"] == "gpt-5.4-nano"


def test_several_extra_models_are_ranked_by_quality() -> None:
    models = tuple({**EXTRA, "key": key, "quality": q} for key, q in (("b", 0.5), ("a", 0.1), ("c", 0.9)))
    catalog = load_catalog(config(extra_models=models))
    assert catalog.tiers == {"light": "a", "balanced": "b", "strong": "c"}


def test_a_later_folder_replaces_an_entry(tmp_path: Path) -> None:
    settings = write(tmp_path, strategies="strategies:\n  - {name: optimized, limits: {max_tokens: 7}}\n")
    assert load_catalog(settings).strategies.get("optimized").limits.max_tokens == 7


def test_a_flow_and_a_prompt_can_be_added(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        prompts__mine="prompts:\n  - {id: hello, inputs: [input], text: 'Hello {{input}}'}\n",
        flows__mine=(
            "name: mine\nnodes: [{id: one, kind: generate, prompt: hello}]\noutput: {answer: [one]}\n"
        ),
    )
    assert load_catalog(settings).flows.get("mine").output.answer == ("one",)


def test_every_problem_is_listed_with_file_and_key(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        models=(
            "models:\n"
            "  - {key: bad, family: f, provider: p, engine: warp, location: x, context_window: 3,"
            " default_strategy: optimized}\n"
            "  - {key: lost, family: f, provider: p, engine: litellm, location: x, context_window: 300,"
            " default_strategy: nowhere}\n"
            "tiers: {light: missing}\n"
        ),
        strategies="strategies:\n  - {name: s, fallbacks: [bad, gone]}\n  - {name: s}\n",
        flows__f=(
            "name: f\n"
            "nodes:\n"
            "  - {id: one, kind: generate, prompt: nope, model: 'tier:huge', strategy: odd}\n"
            "  - {id: two, kind: generate, model: zzz}\n"
            "edges: [{source: one, target: three, condition: sometimes}]\n"
            "loops: [{nodes: [four], until: five.x}]\n"
            "output: {answer: [six], baseline: seven}\n"
        ),
    )
    text = "\n".join(problems_of(settings))
    for part in (
        "models.yaml: models[0] (bad): engine: ",
        "got 'warp'",
        "models.yaml: models[0] (bad): context_window: ",
        "got 3",
        "models.yaml: models[1] (lost): default_strategy: unknown strategy 'nowhere'",
        "models.yaml: tiers.light: unknown model 'missing'",
        "strategies.yaml: strategies[0] (s): fallbacks[1]: unknown model 'gone'",
        "strategies.yaml: strategies[1]: 's' is declared twice",
        "flows/f.yaml (f): nodes[0].prompt: unknown prompt 'nope'",
        "nodes[0].model: unknown tier 'huge'",
        "nodes[0].strategy: unknown strategy 'odd'",
        "nodes[1].model: unknown model 'zzz'",
        "edges[0].target: unknown node 'three'",
        "edges[0].condition: condition 'sometimes'",
        "loops[0].nodes: unknown node 'four'",
        "loops[0].until: unknown node 'five'",
        "output.answer: unknown node 'six'",
        "output.baseline: unknown node 'seven'",
    ):
        assert part in text, part
    assert "fallbacks[0]" not in text, "a broken entry is reported once, not wherever it is mentioned"


def test_settings_are_checked_against_the_catalog() -> None:
    settings = config(local_engine="warp", default_strategy="zz", models=("gone",), tiers={"light": "lost"})
    assert [problem.split(":")[1].strip() for problem in problems_of(settings)] == [
        "local_engine",
        "default_strategy",
        "tiers.light",
        "models[0]",
    ]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_bytes(b"models: \xff\xfe")
    (tmp_path / "strategies.yaml").write_text("strategies: [\n")
    (tmp_path / "modles.yaml").write_text("models: []\n")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "p.yaml").write_text("- a\n")
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "f.yaml").write_text("just words\n")
    settings = config(catalog_dirs=(str(tmp_path), str(tmp_path / "absent")))
    text = "\n".join(problems_of(settings))
    for part in (
        "models.yaml: not UTF-8 at byte 8",
        "strategies.yaml: line 2, column 1: not valid YAML",
        "modles.yaml: unknown file; allowed: models.yaml",
        "prompts/p.yaml: must be a mapping with prompts",
        "flows/f.yaml: must be a mapping, got 'just words'",
        "absent: catalog folder does not exist",
    ):
        assert part in text, part


def test_wrong_shapes_inside_a_file_are_named(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        models="modles: []\nmodels: {a: 1}\ntiers: [light]\n",
        prompts__p="prompts:\n  - 7\n  - {id: x, inputs: [a], text: '{{b}}', signals: {ok: '('}}\n",
    )
    text = "\n".join(problems_of(settings))
    for part in (
        "models.yaml: modles: unknown key; allowed: models, tiers",
        "models.yaml: models: must be a list, got dict",
        "models.yaml: tiers: must map a tier to a model key",
        "prompts/p.yaml: prompts[0]: must be a mapping, got 7",
        "prompts/p.yaml: prompts[1] (x): signals: signal ok: '(' is not a regular expression",
    ):
        assert part in text, part


def test_a_placeholder_that_no_input_declares_is_refused(tmp_path: Path) -> None:
    settings = write(tmp_path, prompts__p="prompts:\n  - {id: x, inputs: [a], text: '{{b}}'}\n")
    assert "text uses ['b'], which inputs ['a'] do not declare" in problems_of(settings)[0]


def test_an_unknown_field_names_the_allowed_ones() -> None:
    (problem,) = problems_of(config(extra_models=({**EXTRA, "vram": 3},)))
    assert problem.startswith("settings: extra_models[0] (mine): vram: unknown field; allowed: key, family")


def test_an_entry_with_two_faults_tells_both() -> None:
    bad = {**EXTRA, "context_window": -1, "default_strategy": "nostrategy"}
    problems = problems_of(config(extra_models=(bad,)))
    assert len(problems) == 2
    assert "context_window" in problems[0] and "unknown strategy 'nostrategy'" in problems[1]
