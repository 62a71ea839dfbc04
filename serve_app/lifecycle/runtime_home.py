"""PARLEY_HOME: where keys, state and logs of one user's runtime live."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from registries.contracts.errors import Conflict, ValidationError

_KEY_BYTES = 32
_OWNER_ONLY_DIR, _OWNER_ONLY_FILE = 0o700, 0o600


@dataclass(frozen=True, slots=True)
class RuntimeHome:
    """The folder and the names inside it. Nothing is made before ``ensure``."""

    path: Path

    @property
    def admin_key_file(self) -> Path:
        """The first admin key, made at the first start."""
        return self.path / "admin.key"

    @property
    def run_dir(self) -> Path:
        """What exists only while a runtime does."""
        return self.path / "run"

    @property
    def state_file(self) -> Path:
        """Which runtime was started from here (see runtime_state)."""
        return self.run_dir / "state.json"

    @property
    def config_file(self) -> Path:
        """RuntimeConfig as JSON, with keys: readable by the owner alone."""
        return self.run_dir / "config.json"

    @property
    def effective_key_file(self) -> Path:
        """The key that the running API takes, when it is not the one of admin.key."""
        return self.run_dir / "api.key"

    @property
    def logs_dir(self) -> Path:
        """Logs of starting and deploying; Ray's own are in its session folder."""
        return self.path / "logs"

    def ensure(self) -> None:
        """Make the folders, for the owner alone; raises ValidationError when that is impossible."""
        try:
            for folder in (self.path, self.run_dir, self.logs_dir):
                folder.mkdir(mode=_OWNER_ONLY_DIR, parents=True, exist_ok=True)
            os.chmod(self.path, _OWNER_ONLY_DIR)
        except OSError as error:
            raise ValidationError(
                f"PARLEY_HOME={str(self.path)!r} cannot be used ({error.strerror}). "
                "Allowed: a folder that you may write to",
                param="PARLEY_HOME",
            ) from None

    def admin_key(self) -> str:
        """The key in admin.key, made (256 random bits, mode 0600) when there is none."""
        try:
            existing = self.admin_key_file.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            existing = ""
        if existing:
            os.chmod(self.admin_key_file, _OWNER_ONLY_FILE)
            return existing
        key = "pk-" + secrets.token_urlsafe(_KEY_BYTES)
        write_private(self.admin_key_file, key + "\n")
        return key

    def saved_key(self) -> str | None:
        """The key of the running API, else of admin.key; None when this home was never used."""
        for file in (self.effective_key_file, self.admin_key_file):
            try:
                key = file.read_text(encoding="ascii", errors="replace").strip()
            except OSError:
                continue
            if key:
                return key
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One `up` or `down` at a time; raises Conflict while another one works."""
        descriptor = os.open(
            self.path / "lifecycle.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY_FILE
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict(f"another `parley up` or `parley down` is at work in {self.path}") from None
        try:
            yield
        finally:
            os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 atomically: never half, never readable by others for a moment."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, _OWNER_ONLY_FILE)
        file.write(text)
    os.replace(scratch, path)
