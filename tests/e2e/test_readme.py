"""Every command in the README, typed as it stands there, on the machine that the test runs on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from actors.engines.script import Script, ScriptedAnswer
from actors.engines.scripted_server import ScriptedServer
from serve_app.settings import load_settings
from tests.conformance.tiny_model import make_tiny_model
from tests.e2e.readme_commands import ROOT, Command, readme_commands
from tests.e2e.test_wheel import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
_ASSIGNMENT = re.compile(r"([A-Z]+)=\$\(.*\)$")


class Newcomer:
    """Types commands in a checkout: a home and ports of their own instead of ~ and the defaults."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.dashboard_port = free_port()
        self.preamble: list[str] = []

    def type(self, text: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run one line; variables that it sets stay for the next ones."""
        line = text.replace("localhost:8001", f"localhost:{self.port}").replace(
            ":8265", f":{self.dashboard_port}"
        )
        line = line.replace("/tmp/evaluation", str(self.home / "evaluation"))
        kept = _ASSIGNMENT.match(text)
        shown = [f'printf %s "${kept[1]}"'] if kept else []
        script = "\n".join(["set -euo pipefail", *self.preamble, line, *shown])
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if kept:
            # Its value, for the command behind it may begin another run.
            self.preamble.append(f"{kept[1]}={shlex.quote(done.stdout)}")
        return done

    def environment(self) -> dict[str, str]:
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("PARLEY_HOME", "PARLEY_API", "RAY_"))
        }
        return {
            **kept,
            "HOME": str(self.home),
            "PARLEY_HOME": str(self.home / ".parley"),
            "PORT": str(self.port),
            "PARLEY_DASHBOARD_PORT": str(self.dashboard_port),
            "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        }

    def processes(self) -> list[psutil.Process]:
        """What runs with this newcomer's home in its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PARLEY_HOME") == str(self.home / ".parley"):
                    found.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    someone = Newcomer(tmp_path)
    yield someone
    someone.type("parley down")


def commands(how: str) -> list[Command]:
    return [command for command in readme_commands() if command.how == how]


def test_every_kind_of_command_is_there() -> None:
    kinds = {command.how for command in readme_commands()}
    assert kinds == {"session", "dry", "own_model", "own_url", "scratch", "stop"}


def test_the_session_of_the_readme(newcomer: Newcomer) -> None:
    printed: list[tuple[str, str]] = []
    for command in commands("session"):
        done = newcomer.type(command.text)
        said = f"{command.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert done.returncode == command.exit_code, said
        printed.append((command.text, done.stdout))
    assert "48 + 37 = 85" in "".join(text for line, text in printed if line.startswith("parley"))
    whole = next(text for line, text in printed if line.startswith("curl") and "challenge" in line)
    assert json.loads(whole)["status"] == "completed"
    streamed = next(text for line, text in printed if line.startswith("curl -sN"))
    assert "event: node.token" in streamed and "event: run.completed" in streamed
    begun = [text for line, text in printed if line.startswith("RUN=")]
    shown = [json.loads(newcomer.type(f"parley runs show {run_id} --json").stdout) for run_id in begun]
    assert {run["status"] for run in shown} == {"completed"}
    happened = {event["type"] for run in shown for event in run["execution_log"]}
    assert {"run.waiting", "run.resumed", "run.failed", "run.restarted"} <= happened
    for command in commands("stop"):
        assert newcomer.type(command.text).returncode == 0
    assert newcomer.processes() == []


@pytest.mark.parametrize("command", commands("dry"), ids=lambda command: command.text)
def test_make_knows_the_command(command: Command) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{command.text} --dry-run"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_model_from_a_folder(newcomer: Newcomer) -> None:
    folder = make_tiny_model(newcomer.home / "tiny", context_window=2048)
    (command,) = commands("own_model")
    up = newcomer.type(command.text.replace("Qwen/Qwen3-0.6B", str(folder)))
    assert up.returncode == 0, up.stderr
    run = newcomer.type("parley run 'Say something.' --flow challenge --max-tokens 8 --no-stream --json")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["status"] == "completed"
    assert {node["source"] for node in result["nodes"]} == {"local"}
    assert not any("nano" in node["model_resolved"] for node in result["nodes"])


async def test_a_model_behind_an_openai_compatible_url(newcomer: Newcomer) -> None:
    (command,) = commands("own_url")
    script = Script(models=("qwen3",), answers=(ScriptedAnswer(texts=("All is well. VERDICT: NO FAULT",)),))
    async with ScriptedServer(script) as server:
        line = command.text.replace("http://127.0.0.1:11434/v1", server.base_url)
        up = await asyncio.to_thread(newcomer.type, line)
        assert up.returncode == 0, up.stderr
        run = await asyncio.to_thread(
            newcomer.type, "parley run 'How are you?' --flow challenge --no-stream --json"
        )
        assert run.returncode == 0, run.stderr
        assert "All is well." in json.loads(run.stdout)["answer"]
        assert server.served >= 2


def test_a_key_in_the_env_file(newcomer: Newcomer) -> None:
    (command,) = commands("scratch")
    done = subprocess.run(["bash", "-c", command.text], cwd=newcomer.home, capture_output=True, text=True)
    assert done.returncode == 0
    settings = load_settings({}, env_file=str(newcomer.home / ".env"))
    assert "OPENAI_API_KEY" in settings.runtime_config(instance="x", api_key="k" * 32).provider_keys
