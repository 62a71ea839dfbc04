"""What Ray's processes inherit, and where Ray's files go."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from actors.ray_flags import INSTANCE_MARKER, find_ports, private_dir, ray_dir
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ValidationError
from serve_app.lifecycle.processes import HOME_MARKER
from serve_app.lifecycle.ray_head import cluster_environment, last_line, prepare_private_dir


def config_in(tmp_path: Path) -> RuntimeConfig:
    return RuntimeConfig(home=str(tmp_path / "home"), instance="i-1")


def test_keys_and_the_callers_own_ray_settings_stay_behind(tmp_path: Path) -> None:
    inherited = {
        "LANG": "C.UTF-8",
        "OPENAI_API_KEY": "sk-canary",
        "PARLEY_API_KEY": "canary",
        "LITELLM_MASTER_KEY": "canary",
        "RAY_ADDRESS": "elsewhere:1",
        "RAY_AUTH_TOKEN": "canary",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment = cluster_environment(config_in(tmp_path), find_ports(), inherited)
    assert environment["LANG"] == "C.UTF-8"
    assert environment[INSTANCE_MARKER] == "i-1" and environment[HOME_MARKER] == str(tmp_path / "home")
    assert "canary" not in " ".join(environment.values())
    assert "RAY_ADDRESS" not in environment and "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["SPT_NOENV"] == "1"


def test_rays_folder_is_private_and_keeps_two_old_sessions(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    folder = private_dir(config)
    try:
        for day in range(1, 5):
            (ray_dir(config) / f"session_2026-01-0{day}_x" / "logs").mkdir(parents=True)
        assert prepare_private_dir(config) == folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert sorted(p.name for p in ray_dir(config).glob("session_*")) == [
            "session_2026-01-03_x",
            "session_2026-01-04_x",
        ]
    finally:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir()
        folder.rmdir()


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    folder = private_dir(config)
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(ValidationError, match="somebody else"):
            prepare_private_dir(config)
    finally:
        folder.unlink()


def test_the_last_line_with_words_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == "no log"
    log.write_text("first\n  the reason\n\n-----\n")
    assert last_line(log) == "the reason"
    log.write_text("\n")
    assert last_line(log) == "no reason given"
