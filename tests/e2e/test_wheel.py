"""The wheel alone, in an empty environment, started from an empty directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.free_ports import free_ports
from tests.machine_pace import paced

PATIENCE = ("--retries", "8", "--timeout", "60")
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"serve_app", "actors", "flows", "registries"}

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "pip", "-qq", "wheel", "--no-deps", "--no-build-isolation", "-w", out, ROOT],
        check=True,
    )
    return next(out.glob("parley_runtime-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel and its declared dependencies, and nothing else."""
    venv = tmp_path_factory.mktemp("empty") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    installed = subprocess.run(
        [
            *(venv / "bin" / "python", "-m", "pip", *PATIENCE, "-qq", "install"),
            # Most of it is never imported; what is gets compiled then.
            *("--no-compile", "-c", ROOT / "constraints.txt", wheel),
        ],
        capture_output=True,
        text=True,
    )
    assert installed.returncode == 0, installed.stderr[-3000:]
    return venv


@pytest.fixture
def provider(environment: Path, tmp_path: Path) -> Iterator[str]:
    """An OpenAI-compatible server, played by the scripted engine from the same environment."""
    script = tmp_path / "script.yaml"
    script.write_text("models: [tiny]\nanswers:\n  - {texts: ['It is 85.']}\n")
    server = subprocess.Popen(
        [
            environment / "bin" / "python",
            "-m",
            "actors.engines.scripted_server",
            "--script",
            str(script),
        ],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        url = server.stdout.readline().strip()
        assert url, f"the scripted server ended with status {server.wait(paced(10))}"
        yield url
    finally:
        server.terminate()
        server.wait(paced(10))
        server.stdout.close()


def test_the_wheel_carries_the_four_packages_and_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name.split("/")[0]}
    assert tops == PACKAGES
    for needed in ("models.yaml", "flows/challenge.yaml", "embedded_models/nano-m/model.safetensors"):
        assert f"registries/data/{needed}" in names


def test_the_packages_belong_to_our_distribution_alone(environment: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.metadata as m, json;"
        f"print(json.dumps({{p: m.packages_distributions().get(p) for p in {sorted(PACKAGES)!r}}}))"
    )
    printed = subprocess.check_output(
        [environment / "bin" / "python", "-c", code], cwd=tmp_path, env=clean_environment(tmp_path)
    )
    assert json.loads(printed) == {key: ["parley-runtime"] for key in sorted(PACKAGES)}


def test_it_starts_from_an_empty_directory_and_answers(
    environment: Path, tmp_path: Path, provider: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    parley = environment / "bin" / "parley"
    port, dashboard_port = free_ports(2)
    ports = {"PORT": str(port), "PARLEY_DASHBOARD_PORT": str(dashboard_port)}
    env = clean_environment(tmp_path) | ports
    try:
        up = subprocess.run(
            [parley, "up", "--model", "tiny", "--model-url", provider],
            cwd=empty,
            env=env,
            capture_output=True,
            text=True,
        )
        assert up.returncode == 0, up.stderr
        run = subprocess.run(
            [parley, "run", "What is 48 + 37?", "--flow", "linear", "--no-stream", "--json"],
            cwd=empty,
            env=env,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        result = json.loads(run.stdout)
        assert result["status"] == "completed"
        assert "85" in result["answer"]
    finally:
        down = subprocess.run([parley, "down"], cwd=empty, env=env, capture_output=True, text=True)
    assert down.returncode == 0, down.stderr


def clean_environment(home: Path) -> dict[str, str]:
    """The variables of a newcomer: no Python path of ours, a home of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "LANG", "LC_ALL", "TERM"} or name.startswith("PIP_")
    }
    return {**kept, "HOME": str(home), "PARLEY_HOME": str(home / ".parley")}
