"""Settings: sources, defaults, refusals, and what becomes of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from serve_app.settings import Settings, load_settings
from serve_app.variables import VARIABLES, NotAllowed

SECRETS = [v.name for v in VARIABLES if v.secret]


def load(**env: str) -> Settings:
    return load_settings(env, env_file=None)


def refusal(**env: str) -> str:
    with pytest.raises(ValidationError) as caught:
        load(**env)
    return caught.value.message


def test_defaults_are_those_of_the_documentation() -> None:
    settings = load()
    assert (settings.app_env, settings.log_level, settings.http_port) == ("dev", "INFO", 8001)
    assert (settings.default_provider, settings.default_strategy) == ("local", "optimized")
    assert (settings.max_tokens_default, settings.max_vram_usage_gb) == (1024, 6.0)
    assert (settings.breaker_max_failures, settings.breaker_timeout_s) == (3, 60.0)
    assert settings.home == str(Path("~/.parley").expanduser().resolve())
    assert settings.model_cache_dir == str(Path(".cache/models").absolute())
    assert settings.given == frozenset()


def test_every_wrong_value_is_named_at_once_with_value_and_allowed_ones() -> None:
    message = refusal(PORT="99999", LOG_LEVEL="loud", CIRCUIT_BREAKER_TIMEOUT="nan", PARLEY_ENGINE="gguf")
    assert "PORT='99999' is not allowed. Allowed: a port number from 1 to 65535" in message
    assert "LOG_LEVEL='loud'" in message and "DEBUG, INFO, WARNING" in message
    assert "CIRCUIT_BREAKER_TIMEOUT='nan'" in message
    assert "PARLEY_ENGINE='gguf'" in message and "auto, vllm, transformers" in message


@pytest.mark.parametrize("name", SECRETS)
def test_a_wrong_secret_is_named_and_never_shown(name: str) -> None:
    value = "sk-very secret\u2028value"
    message = refusal(**{name: value})
    assert name in message
    assert "secret\u2028" not in message and "sk-very" not in message


def test_pools_and_backups_reach_the_configuration() -> None:
    config = load(
        PARLEY_POOL_MIN="3", PARLEY_POOL_MAX="40", PARLEY_BACKUP_EVERY_H="24", PARLEY_BACKUP_KEEP="2"
    ).runtime_config()
    assert (config.pool_min, config.pool_max) == (3, 40)
    assert (config.backup.every_h, config.backup.keep) == (24.0, 2)
    assert load().runtime_config().backup.every_h == 0
    assert "PARLEY_POOL_MIN=30 is more than PARLEY_POOL_MAX" in refusal(PARLEY_POOL_MIN="30")
    assert "PARLEY_BACKUP_EVERY_H" in refusal(PARLEY_BACKUP_EVERY_H="-1")


def test_leases_retention_and_the_queue_reach_the_configuration() -> None:
    config = load(
        PARLEY_LEASE_TTL_S="4.5",
        PARLEY_RETENTION_RUNS_DAYS="30",
        PARLEY_RETENTION_CHECKPOINTS_DAYS="0",
        PARLEY_MAX_QUEUED_RUNS="7",
        PARLEY_RUNNER_DRAIN_S="90",
    ).runtime_config()
    assert config.lease.ttl_s == 4.5
    assert (config.retention.runs_days, config.retention.checkpoints_days) == (30.0, 0.0)
    assert (config.max_queued_runs, config.runner_drain_s) == (7, 90.0)
    assert "PARLEY_LEASE_TTL_S='1'" in refusal(PARLEY_LEASE_TTL_S="1")
    assert "PARLEY_RETENTION_RUNS_DAYS='-1'" in refusal(PARLEY_RETENTION_RUNS_DAYS="-1")
    assert "PARLEY_RUNNER_DRAIN_S='0'" in refusal(PARLEY_RUNNER_DRAIN_S="0")
    assert "PARLEY_MAX_QUEUED_RUNS='0'" in refusal(PARLEY_MAX_QUEUED_RUNS="0")


def test_the_settings_defaults_are_those_of_the_configuration() -> None:
    made, plain = load().runtime_config(), RuntimeConfig(home="")
    limits = ("pool_min", "pool_max", "max_queued_runs", "runner_drain_s")
    for name in ("lease", "retention", "backup", "breaker", *limits):
        assert getattr(made, name) == getattr(plain, name)


@pytest.mark.parametrize(
    "url", ["postgresql://u:pw@db/runs?schema=a", "postgres://db/runs", "sqlite:///x.db"]
)
def test_stores_that_there_are(url: str) -> None:
    assert load(PARLEY_STORE_URL=url).runtime_config().store_url == url


def test_secrets_are_in_no_repr() -> None:
    key = "sk-0123456789abcdef-canary"
    settings = load(OPENAI_API_KEY=key, PARLEY_API_KEY=key, MISTRAL_API_KEY=key, PARLEY_MODEL_API_KEY=key)
    config = settings.runtime_config()
    assert key not in repr(settings) and key not in repr(config)
    assert config.provider_keys["MISTRAL_API_KEY"] == key
    assert "PARLEY_API_KEY" not in config.provider_keys


@pytest.mark.parametrize("name", ["PARLEY_MODEL_URL", "LITELLM_PROXY_URL", "PARLEY_STORE_URL"])
@pytest.mark.parametrize("password", ["canary", "ca/canary", "canary@x"])
def test_a_password_in_a_wrong_address_is_not_shown(name: str, password: str) -> None:
    told = refusal(**{name: f"http://:{password}@host:1"})
    assert f"{name}=" in told and "canary" not in told


def test_a_litellm_proxy_travels_with_the_keys() -> None:
    config = load(LITELLM_PROXY_URL="http://proxy:4000", LITELLM_MASTER_KEY="sk-1234").runtime_config()
    wanted = {"LITELLM_PROXY_URL": "http://proxy:4000", "LITELLM_MASTER_KEY": "sk-1234"}
    assert config.provider_keys == wanted
    assert "LITELLM_PROXY_URL='proxy'" in refusal(LITELLM_PROXY_URL="proxy")


def test_the_environment_goes_before_the_file_and_flags_before_both(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=9001\nLOG_LEVEL=debug  # loud\nexport APP_ENV='prod'\nPARLEY_DASHBOARD_PORT=9003\n")
    settings = load_settings({"PORT": "9002"}, file, overrides={"PARLEY_DASHBOARD_PORT": "9004"})
    assert (settings.http_port, settings.log_level, settings.app_env) == (9002, "DEBUG", "prod")
    assert settings.dashboard_port == 9004
    assert settings.given_in_environment == {"PORT"}
    assert settings.given == {"PORT", "LOG_LEVEL", "APP_ENV", "PARLEY_DASHBOARD_PORT"}


def test_an_empty_value_means_the_default() -> None:
    assert load(PORT="", OPENAI_API_KEY="  ").http_port == 8001


def test_unknown_variables_are_ignored() -> None:
    assert load(PARLEY_NO_SUCH_THING="1", FOO="bar").http_port == 8001


def test_a_dollar_sign_in_the_file_is_a_dollar_sign(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("OPENAI_API_KEY=sk-$HOME-${PATH}\n")
    assert load_settings({}, file).openai_api_key == "sk-$HOME-${PATH}"


def test_a_line_that_is_no_assignment_is_named_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=9001\n=what is this\n")
    with pytest.raises(ValidationError, match=r"line 2: not understood"):
        load_settings({}, file)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"PORT=\xff\xfe\n")
    with pytest.raises(ValidationError, match="UTF-8"):
        load_settings({}, file)


def test_contradictions_are_refused() -> None:
    assert "PARLEY_MODEL_URL needs PARLEY_MODEL" in refusal(PARLEY_MODEL_URL="http://localhost:11434/v1")
    assert "also PORT" in refusal(PORT="9000", PARLEY_DASHBOARD_PORT="9000")


@pytest.mark.parametrize(
    "name",
    ["PARLEY_HOME", "MODEL_CACHE_DIR", "PARLEY_CATALOG_DIRS", "PARLEY_OUTPUTS_DIR", "PARLEY_TRACE_FILE"],
)
def test_a_folder_of_somebody_unknown_is_named(name: str) -> None:
    assert f"{name}='~nobody-here/x' is not allowed. Allowed: " in refusal(**{name: "~nobody-here/x"})


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="from 3.13 on Path.resolve lets such links be")
def test_a_home_of_links_that_lead_to_themselves_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "is not allowed. Allowed: " in refusal(PARLEY_HOME=str(tmp_path / "a"))


def test_a_default_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert "PARLEY_HOME='~/.parley' is not allowed. Allowed: a folder" in refusal()


@given(st.text(max_size=40), st.sampled_from(VARIABLES))
def test_any_text_is_a_value_or_a_refusal_and_never_a_crash(text: str, variable: object) -> None:
    name = variable.name  # type: ignore[attr-defined]
    try:
        settings = load(**{name: text})
    except ValidationError as error:
        assert name in error.message
    else:
        assert isinstance(settings, Settings)


@given(st.integers())
def test_exactly_the_ports_are_ports(number: int) -> None:
    variable = next(v for v in VARIABLES if v.name == "PORT")
    try:
        assert variable.value_of(str(number)) == number
        assert 1 <= number <= 65_535
    except NotAllowed:
        assert not 1 <= number <= 65_535


@given(st.sampled_from(["1_000", "٣", "0x10", "1e3", " 80 80", "8001.0", "+"]))
def test_numbers_in_other_clothes_are_refused(text: str) -> None:
    with pytest.raises(NotAllowed):
        next(v for v in VARIABLES if v.name == "PORT").value_of(text)


def test_the_configuration_survives_its_journey_as_json() -> None:
    config = load(PARLEY_MODEL="Qwen/Qwen3-0.6B", OPENAI_API_KEY="sk-abc").runtime_config(
        instance="x", api_key="k"
    )
    assert RuntimeConfig.model_validate_json(config.model_dump_json()) == config
    assert json.loads(config.model_dump_json())["instance"] == "x"


def test_two_spellings_of_a_home_are_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert load(PARLEY_HOME=str(tmp_path / "link") + "/").home == str(tmp_path.resolve() / "real")


def test_outputs_live_in_the_home_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    assert load(PARLEY_HOME=str(tmp_path)).runtime_config().outputs_dir == str(tmp_path.resolve() / "outputs")
    assert load(PARLEY_OUTPUTS_DIR=str(tmp_path / "o")).runtime_config().outputs_dir == str(tmp_path / "o")


def test_the_example_file_names_every_setting_with_its_default() -> None:
    example = Path(__file__).parents[3] / ".env.example"
    text = example.read_text(encoding="utf-8")
    missing = [v.name for v in VARIABLES if f"{v.name}=" not in text and v.name not in {"PROMPT", "FLOW"}]
    assert missing == []
    assert replace(load_settings({}, example), given=frozenset()) == load()
