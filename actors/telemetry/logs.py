"""structlog as JSON lines: one object a line, with request_id and run_id wherever they are bound."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

import orjson
import structlog

from actors.telemetry.line_file import LineFile
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
    covered; others' loggers are left alone. Lines are appended by several processes of one component, and a
    rotation that copies and truncates the file works; see LineFile for when a line is there. Warnings and
    worse are there at once.
    """
    folder = Path(config.home) / LOG_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{component}.jsonl"
    level = getattr(logging, config.log_level.upper(), logging.INFO)
    # In a replica Serve puts a logger of its own in the place of stderr, which walks the whole stack for each
    # line: a third of the ingress's CPU, for a second copy of the file.
    copies = isinstance(sys.stderr, io.TextIOBase)
    lines = _Lines(LineFile(path), sys.stderr if copies else None)
    finish = _finish(Redactor.of(config), component, config.instance, config.app_env)
    handler = _StandardRecords(lines, [*_SHARED, structlog.stdlib.ExtraAdder()], finish)
    for package in PACKAGES:
        logger = logging.getLogger(package)
        for old in list(logger.handlers):
            logger.removeHandler(old)
            old.close()
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    structlog.configure(
        processors=[*_SHARED, *finish],
        logger_factory=lines.logger,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    return path


def flush_logs() -> None:
    """Have every line so far in its file."""
    for package in PACKAGES:
        for handler in logging.getLogger(package).handlers:
            handler.flush()


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


class _Lines:
    """Where finished lines go: the file, and stderr where it is one's own."""

    def __init__(self, file: LineFile, copy: TextIO | None) -> None:
        self.file = file
        self._copy = copy

    def write(self, line: str, urgent: bool = False) -> None:
        self.file.write(line, urgent)
        if self._copy is not None:
            # A pipe whose reader is gone, or a stream closed at the process's end, must not stop the work.
            with contextlib.suppress(OSError, ValueError):
                self._copy.write(line + "\n")
                self._copy.flush()

    def logger(self, *args: Any) -> _LineLogger:
        return _LineLogger(self, *args)


class _LineLogger:
    """What structlog hands its finished lines to.

    Not the standard library's logger: a record, its way through handlers and a formatter took four fifths of
    a line's time.
    """

    def __init__(self, lines: _Lines, name: str = "") -> None:
        self.name = name
        self._lines = lines

    def info(self, line: str) -> None:
        self._lines.write(line)

    def warning(self, line: str) -> None:
        self._lines.write(line, urgent=True)

    debug = msg = info
    warn = error = exception = critical = fatal = failure = warning


class _StandardRecords(logging.Handler):
    """Records of the standard library's loggers as the same lines."""

    def __init__(self, lines: _Lines, foreign: Sequence[Processor], finish: Sequence[Processor]) -> None:
        """``foreign`` come first and see the record as ``_record``; the last of ``finish`` makes the line."""
        super().__init__()
        self._lines = lines
        self._foreign = tuple(foreign)
        self._finish = tuple(finish)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.write(self._line(record), urgent=record.levelno >= logging.WARNING)
        except Exception:  # noqa: BLE001 - the standard library's rule for handlers
            self.handleError(record)

    def flush(self) -> None:
        self._lines.file.flush()

    def close(self) -> None:
        self._lines.file.close()
        super().close()

    def _line(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        event: Any = {"event": record.getMessage(), "_record": record, "_from_structlog": False}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        if record.stack_info:
            event["stack_info"] = record.stack_info
        for process in self._foreign:
            event = process(None, level, event)
        del event["_record"], event["_from_structlog"]
        for process in self._finish:
            event = process(None, level, event)
        return str(event)


def _finish(redactor: Redactor, component: str, instance: str, app_env: str) -> list[Processor]:
    """From an event with its level and time to the line."""

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

    return [
        structlog.processors.format_exc_info,
        drop_foreign,
        stamp,
        redact,
        structlog.processors.JSONRenderer(serializer=_as_json),
    ]
