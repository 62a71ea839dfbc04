"""Why the application was not deployed, by what its deployer left behind."""

from __future__ import annotations

import re
from pathlib import Path

from serve_app.lifecycle.ports import holder_of
from serve_app.lifecycle.ray_head import last_line

_NOT_BOUND = re.compile(r"cannot bind socket \(([^()]*)\) for \[\S*:(\d+)\]")
"""HAProxy 2.8's words. Its last line, which comes after them, says only that it could not start."""


def why_not_deployed(log: Path) -> str:
    """One line; the port and its holder where HAProxy could not listen, else what the log says last."""
    refused = _NOT_BOUND.search(_text(log))
    if refused is None:
        return last_line(log)
    reason, port = refused[1], int(refused[2])
    holder = holder_of(port)
    by = f" by {holder}" if holder else ""
    return (
        f"HAProxy cannot listen on port {port}: {reason.lower()}{by}, taken after the start had found it"
        " free. Start again; the API's port is chosen with --port N or PORT=N"
    )


def _text(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
