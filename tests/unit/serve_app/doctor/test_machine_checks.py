"""What the doctor says, from facts."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.free_ports import ephemeral_range, free_port, is_free
from serve_app.doctor import machine_checks as doctor
from serve_app.doctor.model_servers import ModelServer, find_model_servers, model_names, suggestion
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.settings import load_settings
from tests.machine_pace import paced


@contextmanager
def server_with(body: bytes) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v1/models" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_every_check_of_this_machine_has_a_verdict(tmp_path: Path) -> None:
    settings = load_settings({"PARLEY_HOME": str(tmp_path)}, None)
    checks = list(doctor.machine_checks(settings, RuntimeHome(tmp_path)))
    names = [check.name for check in checks]
    assert {"Python", "gcc", "g++", "make", "ray", "torch", "memory", "disk", "HAProxy"} <= set(names)
    assert all(check.advice for check in checks if check.verdict == "missing")


def test_python_versions() -> None:
    assert doctor.python_check((3, 12)).verdict == "ok"
    assert doctor.python_check((3, 10)).verdict == "missing" == doctor.python_check((3, 14)).verdict


def test_a_missing_tool_comes_with_the_package_that_has_it() -> None:
    assert doctor.tool_check("gcc", "/usr/bin/gcc").verdict == "ok"
    check = doctor.tool_check("gcc", None)
    assert check.verdict == "missing" and "build-essential" in check.advice


def test_packages() -> None:
    assert doctor.package_check("pydantic", "x", required=True).verdict == "ok"
    assert doctor.package_check("no-such-package", "x", required=True).verdict == "missing"
    assert doctor.package_check("no-such-package", "x", required=False).verdict == "note"


def test_torch_and_gpu() -> None:
    assert doctor.torch_check(None, None).verdict == "missing"
    assert doctor.torch_check("2.13.0+cpu", None).verdict == "ok"
    assert doctor.torch_check("2.13.0+cpu", "H200").verdict == "note"
    assert "H200" in doctor.torch_check("2.13.0", "H200").detail


def test_engines_and_proxy() -> None:
    assert [c.name for c in doctor.engine_checks("auto")] == ["vllm", "transformers"]
    assert doctor.haproxy_check("off").verdict == "note"
    assert doctor.haproxy_check("on").name == "HAProxy"


def test_memory_and_disk(tmp_path: Path) -> None:
    assert [doctor.memory_check(gb).verdict for gb in (16, 5, 2)] == ["ok", "note", "missing"]
    assert str(tmp_path) in doctor.disk_check(tmp_path / "not" / "there").detail


def test_a_port_that_a_connection_may_take_is_noted(tmp_path: Path) -> None:
    handed_out = ephemeral_range()
    free = next(port for port in reversed(handed_out) if is_free(port))
    ports = {"PORT": str(free), "PARLEY_DASHBOARD_PORT": str(free_port())}
    settings = load_settings({"PARLEY_HOME": str(tmp_path), **ports}, None)
    api, dashboard = doctor.port_checks(settings, RuntimeHome(tmp_path))
    assert api.verdict == "note" and f"{handed_out[0]}-{handed_out[-1]}" in api.detail
    assert "PORT" in api.advice and dashboard.verdict == "ok"


def test_ports_and_redis(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = load_settings({"PARLEY_HOME": str(tmp_path), "PORT": str(port)}, None)
        api, _ = doctor.port_checks(settings, RuntimeHome(tmp_path))
        assert api.verdict == "missing" and "set PORT" in api.advice
    assert doctor.redis_check(True).verdict == "ok"
    assert doctor.redis_check(False).verdict == "note"


def test_home(tmp_path: Path) -> None:
    assert doctor.home_check(tmp_path / "new").verdict == "ok"


def test_model_servers_are_found_by_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.doctor.model_servers._PROBE_S", paced(2))
    body = json.dumps({"data": [{"id": "llama3.2"}, {"id": "b"}, {"id": "c"}, {"id": "d"}]}).encode()
    with server_with(body) as good, server_with(b"<html>") as other, server_with(b'{"data": []}') as empty:
        ports = ((good, "Ollama"), (other, "vLLM"), (empty, "LM Studio"))
        found = find_model_servers(ports)
        assert found == [ModelServer("Ollama", f"http://127.0.0.1:{good}/v1", ("llama3.2", "b", "c", "d"))]
        assert find_model_servers(ports, exclude_ports=frozenset({good})) == []
        line = suggestion(found[0])
        assert f"PARLEY_MODEL_URL=http://127.0.0.1:{good}/v1 PARLEY_MODEL=llama3.2 make run" in line
    assert find_model_servers(()) == []


def test_a_server_that_says_nothing_does_not_hold_us_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert find_model_servers(((silent.getsockname()[1], "x"),)) == []


def test_names_in_lists() -> None:
    assert model_names(b'{"data": [{"id": "a"}]}') == ("a",)
    for wrong in (b"", b"[]", b'{"data": 1}', b'{"data": [{}]}', b"\xff"):
        assert model_names(wrong) is None


def test_the_gpu_is_what_the_tool_says() -> None:
    done = subprocess.CompletedProcess([], 0, stdout="NVIDIA H200\nNVIDIA H200\n", stderr="")
    assert doctor.gpu_name("/usr/bin/nvidia-smi", run=lambda *a, **k: done) == "NVIDIA H200"
    failed = subprocess.CompletedProcess([], 9, stdout="no devices\n", stderr="")
    assert doctor.gpu_name("/usr/bin/nvidia-smi", run=lambda *a, **k: failed) is None
    assert doctor.gpu_name(None) is None
