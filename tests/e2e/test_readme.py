"""Every command in the README, typed as it stands there, on the machine that the test runs on.

Those of its one session are typed in test_two_commands.py, where that runtime runs.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.engines.script import Script, ScriptedAnswer
from actors.engines.scripted_server import ScriptedServer
from serve_app.settings import load_settings
from tests.conformance.tiny_model import make_tiny_model
from tests.e2e.newcomer import Newcomer
from tests.e2e.readme_commands import ROOT, Command, commands, readme_commands

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    someone = Newcomer(tmp_path)
    yield someone
    someone.type("parley down")


def test_every_kind_of_command_is_there() -> None:
    kinds = {command.how for command in readme_commands()}
    assert kinds == {"session", "dry", "own_model", "own_url", "scratch", "stop"}


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
