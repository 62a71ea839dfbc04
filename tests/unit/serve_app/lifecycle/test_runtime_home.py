"""PARLEY_HOME: folders and keys for the owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from registries.contracts.errors import Conflict, ValidationError
from serve_app.lifecycle.runtime_home import RuntimeHome, write_private
from serve_app.lifecycle.runtime_state import (
    ProcessFact,
    RuntimeState,
    forget_state,
    read_state,
    write_state,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path) -> RuntimeHome:
    made = RuntimeHome(tmp_path / "deep" / "home")
    made.ensure()
    return made


def state() -> RuntimeState:
    return RuntimeState(
        instance="abc",
        phase="started",
        http_port=8001,
        dashboard_port=8265,
        gcs_address="127.0.0.1:1",
        ray_dir="/tmp/x",
        started_at=1.0,
        processes=(ProcessFact(pid=1, started=2.0, name="raylet"),),
    )


def test_folders_are_for_the_owner_alone(home: RuntimeHome) -> None:
    assert mode(home.path) == mode(home.run_dir) == mode(home.logs_dir) == 0o700


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValidationError, match=r"PARLEY_HOME=.*file/home"):
        RuntimeHome(tmp_path / "file" / "home").ensure()


def test_the_key_is_made_once_and_is_long_and_private(home: RuntimeHome) -> None:
    key = home.admin_key()
    assert home.admin_key() == key and len(key) >= 43
    assert mode(home.admin_key_file) == 0o600


def test_a_key_that_others_could_read_is_closed_again(home: RuntimeHome) -> None:
    home.admin_key_file.write_text("my-own-key-0123456789\n")
    home.admin_key_file.chmod(0o644)
    assert home.admin_key() == "my-own-key-0123456789"
    assert mode(home.admin_key_file) == 0o600


def test_an_empty_key_file_gets_a_key(home: RuntimeHome) -> None:
    home.admin_key_file.write_text("\n")
    assert len(home.admin_key()) >= 43


def test_the_running_apis_key_goes_before_the_first_one(home: RuntimeHome) -> None:
    assert home.saved_key() is None
    first = home.admin_key()
    assert home.saved_key() == first
    write_private(home.effective_key_file, "another-key-0123456789\n")
    assert home.saved_key() == "another-key-0123456789"


def test_private_files_are_private_also_when_they_were_not(home: RuntimeHome) -> None:
    file = home.run_dir / "x"
    file.write_text("old")
    file.chmod(0o666)
    write_private(file, "new")
    assert file.read_text() == "new" and mode(file) == 0o600
    assert sorted(p.name for p in home.run_dir.iterdir()) == ["x"]


def test_only_one_works_on_a_home(home: RuntimeHome) -> None:
    with home.lock(), pytest.raises(Conflict, match="another `parley up` or `parley down`"), home.lock():
        pass
    with home.lock():
        pass


def test_the_state_is_written_read_and_forgotten(home: RuntimeHome) -> None:
    assert read_state(home) is None
    write_state(home, state())
    assert read_state(home) == state() and mode(home.state_file) == 0o600
    assert state().api_url == "http://127.0.0.1:8001" and state().dashboard_url == "http://127.0.0.1:8265"
    forget_state(home)
    forget_state(home)
    assert read_state(home) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"instance": 1}', b"[]"])
def test_a_damaged_state_is_none(home: RuntimeHome, content: bytes) -> None:
    home.state_file.write_bytes(content)
    assert read_state(home) is None
