from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import structlog

from actors.telemetry.logs import bound, configure_logging, flush_logs
from registries.contracts.config import RuntimeConfig


def lines(path: Path) -> list[dict[str, Any]]:
    flush_logs()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def configured(tmp_path: Path) -> Path:
    return configure_logging(
        RuntimeConfig(home=str(tmp_path), instance="i", provider_keys={"K": "canary-secret"}), "test"
    )


def test_structlog_and_standard_loggers_write_the_same_json(tmp_path: Path) -> None:
    path = configured(tmp_path)
    with bound(request_id="req-1", run_id="run-1"):
        structlog.get_logger("actors.x").info("provider_call", model="nano-m", api_key="abc", latency_s=0.5)
        logging.getLogger("flows.visit").info(
            "workflow_node_executed", extra={"node_name": "creator", "duration": 1}
        )
        logging.getLogger("registries.y").warning("%s happened, %s", "this", "canary-secret")
    structlog.get_logger("actors.x").info("outside")
    first, second, third, fourth = lines(path)
    assert (
        first["event"] == "provider_call" and first["api_key"] == "[redacted]" and first["latency_s"] == 0.5
    )
    assert second["node_name"] == "creator" and second["event"] == "workflow_node_executed"
    assert third["event"] == "this happened, [redacted]"
    for line in (first, second, third):
        assert line["request_id"] == "req-1" and line["run_id"] == "run-1"
        assert line["component"] == "test" and line["instance"] == "i" and line["timestamp"] and line["level"]
    assert "run_id" not in fourth
    assert fourth["app_env"] == "dev"


def test_exceptions_are_one_line_without_secrets(tmp_path: Path) -> None:
    path = configured(tmp_path)
    try:
        raise ValueError("with canary-secret inside")
    except ValueError:
        structlog.get_logger("actors.x").exception("it_failed")
    (line,) = lines(path)
    assert "ValueError" in line["exception"] and "canary" not in line["exception"]


def test_configuring_twice_does_not_double_lines_and_levels_count(tmp_path: Path) -> None:
    configured(tmp_path)
    path = configured(tmp_path)
    structlog.get_logger("actors.x").debug("hidden")
    structlog.get_logger("actors.x").info("shown")
    assert [line["event"] for line in lines(path)] == ["shown"]
