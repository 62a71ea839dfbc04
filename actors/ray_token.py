"""The token of Ray's control plane: made once, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from actors.ray_flags import token_path
from registries.contracts.config import RuntimeConfig


def ensure_ray_token(config: RuntimeConfig) -> Path:
    """Path of the token file, made (mode 0600, 256 bits) when it is missing.

    Whoever holds the token can run any code in the cluster: it is for operators (`parley token`).
    """
    path = token_path(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        os.chmod(path, 0o600)
        return path
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path


def read_ray_token(config: RuntimeConfig) -> str:
    """The token; raises FileNotFoundError when no runtime was ever started from this PARLEY_HOME."""
    return token_path(config).read_text().strip()
