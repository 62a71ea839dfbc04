"""`parley …` as a user types it, in one PARLEY_HOME."""

from __future__ import annotations

from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from serve_app.cli.main import app
from serve_app.lifecycle.runtime_home import RuntimeHome

EMPTY_ENVIRONMENT = {"PARLEY_MODEL": None, "OPENAI_API_KEY": None, "ANTHROPIC_API_KEY": None, "NO_COLOR": "1"}


class Shell:
    """Runs `parley …` in one PARLEY_HOME."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = RuntimeHome(home)
        self.environment = {**EMPTY_ENVIRONMENT, "PARLEY_HOME": str(home), "PORT": str(port)}

    def __call__(self, *words: str, input: str | None = None, **env: str) -> Result:
        return CliRunner().invoke(app, list(words), input=input, env={**self.environment, **env})
