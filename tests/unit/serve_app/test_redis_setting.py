"""PARLEY_REDIS_URL: what is allowed, where it goes, and that nobody sees it."""

from __future__ import annotations

import pytest

from registries.contracts.errors import ValidationError
from serve_app.settings import load_settings

CANARY = "canary-0123456789"


def test_it_goes_to_the_configuration_and_into_no_repr() -> None:
    url = f"redis://me:{CANARY}@redis.example:6380/2"
    settings = load_settings({"PARLEY_REDIS_URL": url}, env_file=None)
    config = settings.runtime_config()
    assert config.redis_url == url
    assert CANARY not in repr(settings) and CANARY not in repr(config)
    assert load_settings({}, env_file=None).runtime_config().redis_url == ""


@pytest.mark.parametrize("url", ["redis.example:6379", f"http://{CANARY}@host", f"redis://a {CANARY}"])
def test_another_text_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        load_settings({"PARLEY_REDIS_URL": url}, env_file=None)
    assert "PARLEY_REDIS_URL" in caught.value.message and "rediss://" in caught.value.message
    assert CANARY not in caught.value.message


@pytest.mark.parametrize("url", ["redis://h", "rediss://u:p@h:1/0", "unix:///run/redis.sock"])
def test_the_three_schemes(url: str) -> None:
    assert load_settings({"PARLEY_REDIS_URL": url}, env_file=None).redis_url == url
