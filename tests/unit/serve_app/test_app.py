from __future__ import annotations

from pathlib import Path

import pytest

from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from serve_app.app import build_app, main, read_config
from serve_app.ingress import ingress_deployment


def test_a_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = RuntimeConfig(home=str(tmp_path), api_key="k", max_ongoing_requests=7)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert read_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        ("{", "not valid JSON"),
        ('{"home": "x", "http_port": 0}', "http_port"),
        ('{"home": "x", "htp_port": 1}', "Did you mean 'http_port'?"),
    ],
)
def test_a_wrong_configuration_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, told: str
) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_text(content)
    assert main(["--config", str(file)]) == 1
    shown = capsys.readouterr().err
    assert str(file) in shown and told in shown and shown.count("\n") == 1


def test_nothing_is_deployed_without_a_key(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="api_key"):
        build_app(RuntimeConfig(home=str(tmp_path)))


def test_the_ingress_lets_in_more_than_it_admits(tmp_path: Path) -> None:
    deployment = ingress_deployment(RuntimeConfig(home=str(tmp_path), api_key="k", max_ongoing_requests=10))
    assert deployment.name == "Ingress"
    assert deployment.max_ongoing_requests > 10 and deployment.max_queued_requests >= 1024
    assert deployment.backpressure_config.status_code == 429
