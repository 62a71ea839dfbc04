"""The environment of a checkout is made anew where it is not whole; packages are not installed here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "deploy" / "make_environment.py"
OTHER_PYTHON = "#!/bin/sh\necho '3.10.1 (another build)'\n"
NO_PIP = '#!/bin/sh\necho "No module named pip" >&2\nexit 1\n'


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_environment", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def whole(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real one."""
    venv = tmp_path_factory.mktemp("whole") / ".venv"
    script.make_venv(venv)
    return venv


def left_behind(venv: Path, python: str) -> None:
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    (venv / "old").touch()
    (venv / "bin" / "python").write_text(python)
    (venv / "bin" / "python").chmod(0o755)


def run_script(venv: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--venv", str(venv)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=60,
    )


def test_a_whole_one_has_pip_and_stays(script: ModuleType, whole: Path) -> None:
    subprocess.run([str(whole / "bin" / "python"), "-m", "pip", "--version"], check=True, capture_output=True)
    (whole / "mine").touch()
    script.make_venv(whole)
    assert (whole / "mine").exists() and script.is_whole(whole)


@pytest.mark.parametrize("python", [OTHER_PYTHON, NO_PIP])
def test_one_of_another_python_or_without_pip_is_made_anew(
    script: ModuleType, tmp_path: Path, python: str
) -> None:
    venv = tmp_path / ".venv"
    left_behind(venv, python)
    assert script.hindrance(venv) is None and not script.is_whole(venv)
    script.make_venv(venv)
    assert script.is_whole(venv) and not (venv / "old").exists()


def test_an_interrupted_one_is_not_whole(script: ModuleType, whole: Path, tmp_path: Path) -> None:
    half = tmp_path / ".venv"
    half.symlink_to(whole)
    assert script.is_whole(half)
    mark = whole / script.HALF_MADE
    mark.touch()
    assert not script.is_whole(half)
    mark.unlink()
    assert not script.is_whole(tmp_path / "nothing")


def test_the_mark_of_an_interruption_stays(script: ModuleType, tmp_path: Path) -> None:
    """As at Ctrl-C: venv ends in the middle."""
    venv = tmp_path / ".venv"
    left_behind(venv, NO_PIP)
    blocked = run_script(venv, PYTHONPATH=str(standing_in(tmp_path, "venv", "raise SystemExit(130)")))
    assert blocked.returncode == 1 and "status 130" in blocked.stderr
    assert (venv / script.HALF_MADE).exists() and script.hindrance(venv) is None


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_that_cannot_make_one_says_what_to_install(tmp_path: Path, module: str) -> None:
    stand_in = standing_in(tmp_path, "sitecustomize", f"import sys\nsys.modules[{module!r}] = None")
    told = run_script(tmp_path / ".venv", PYTHONPATH=str(stand_in))
    assert told.returncode == 2 and "apt install python3-venv" in told.stderr and module in told.stderr
    assert "Traceback" not in told.stderr and not (tmp_path / ".venv").exists()


def test_a_folder_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "letter").touch()
    told = run_script(tmp_path / "work")
    assert told.returncode == 2 and "move it away" in told.stderr and (tmp_path / "work" / "letter").exists()


def standing_in(folder: Path, module: str, text: str) -> Path:
    """A folder for PYTHONPATH with this module in it."""
    made = folder / "stand-ins"
    made.mkdir(exist_ok=True)
    (made / f"{module}.py").write_text(text)
    return made
