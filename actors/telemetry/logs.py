"""structlog as JSON lines: one object a line, with request_id and run_id wherever they are bound."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson
import structlog

from actors.telemetry.redaction import Redactor
from registries.contracts.config import RuntimeConfig

PACKAGES = ("serve_app", "actors", "flows", "registries")
LOG_FOLDER = "logs"
Event = MutableMapping[str, Any]
Processor = Callable[[Any, str, Any], Any]
_FOREIGN = ("_ray_timestamp_ns", "taskName", "color_message")
"""What Ray, asyncio and uvicorn hang on every standard record."""


def configure_logging(config: RuntimeConfig, component: str) -> Path:
    """Send this process's lines to ``PARLEY_HOME/logs/<component>.jsonl``, and to stderr; the file's path.

    Call it once, first thing in a process. Both structlog and the standard loggers of our packages are
    covered; others' loggers are left alone. The file is opened for appending, so that several processes of
    one component share it line by line, and a rotation that copies and truncates it works.
    """
    folder = Path(config.home) / LOG_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{component}.jsonl"
    targets: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8")]
    # In a replica Serve puts a logger of its own in the place of stderr, which walks the whole stack for each
    # line: a third of the ingress's CPU, for a second copy of the file.
    if isinstance(sys.stderr, io.TextIOBase):
        targets.append(logging.StreamHandler(sys.stderr))
    formatter = _formatter(Redactor.of(config), component, config.instance, config.app_env)
    for target in targets:
        target.setFormatter(formatter)
    level = getattr(logging, config.log_level.upper(), logging.INFO)
    for package in PACKAGES:
        logger = logging.getLogger(package)
        for old in list(logger.handlers):
            logger.removeHandler(old)
            old.close()
        for target in targets:
            logger.addHandler(target)
        logger.setLevel(level)
        logger.propagate = False
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return path


def bound(**facts: str) -> AbstractContextManager[Any]:
    """Bind request_id, run_id … to every line of this task (and of the tasks it starts) inside the block."""
    return structlog.contextvars.bound_contextvars(**facts)


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _as_json(event: Any, **_: Any) -> str:
    """orjson takes a tenth of json's time; it refuses half surrogates and odd types, which json writes."""
    try:
        return orjson.dumps(event).decode()
    except orjson.JSONEncodeError:
        return json.dumps(event, ensure_ascii=True, default=str)


class _OncePerRecord(logging.Formatter):
    """Redacts and renders a record once, however many handlers write it.

    What structlog's ProcessorFormatter does, for our two kinds of records: that one makes a copy of every
    record first, at the price of making it again, for formatters of others that would see it changed.
    """

    def __init__(self, foreign: Sequence[Processor], processors: Sequence[Processor]) -> None:
        """``foreign`` come first where the record is not structlog's; the last processor makes the line."""
        super().__init__()
        self._foreign = tuple(foreign)
        self._processors = tuple(processors)

    def format(self, record: logging.LogRecord) -> str:
        line: str | None = getattr(record, "_parley_line", None)
        if line is None:
            line = self._line(record)
            record.__dict__["_parley_line"] = line
        return line

    def _line(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        event: Any
        if isinstance(record.msg, dict) and hasattr(record, "_logger"):
            event = record.msg.copy()
        else:
            event = {"event": record.getMessage(), "_record": record, "_from_structlog": False}
            if record.exc_info:
                event["exc_info"] = record.exc_info
            if record.stack_info:
                event["stack_info"] = record.stack_info
            for process in self._foreign:
                event = process(None, level, event)
            del event["_record"], event["_from_structlog"]
        for process in self._processors:
            event = process(None, level, event)
        return str(event)


def _formatter(redactor: Redactor, component: str, instance: str, app_env: str) -> logging.Formatter:
    def stamp(_: Any, __: str, event: Event) -> Event:
        event.setdefault("component", component)
        event.setdefault("instance", instance)
        event.setdefault("app_env", app_env)
        return event

    def drop_foreign(_: Any, __: str, event: Event) -> Event:
        for name in _FOREIGN:
            event.pop(name, None)
        return event

    def redact(_: Any, __: str, event: Event) -> Event:
        return {name: redactor.value(value, name) for name, value in event.items()}

    return _OncePerRecord(
        foreign=[*_SHARED, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.processors.format_exc_info,
            drop_foreign,
            stamp,
            redact,
            structlog.processors.JSONRenderer(serializer=_as_json),
        ],
    )
