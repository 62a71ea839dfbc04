"""Results as files: ``outputs/<flow>_flows/{execution_id}.json``, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import StoreError, ValidationError
from registries.contracts.runs import RunRequest, RunResult

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
SAFE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
_OURS = re.compile(
    r"^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.json|\.[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.json\.[0-9a-f]{8})$"
)
"""A result, or one that was not published; whatever else somebody keeps beside them is theirs."""


class Artifact(RunResult):
    """The file: the whole result, and what was asked."""

    execution_id: str
    request: RunRequest


def outputs_root(config: RuntimeConfig) -> Path:
    """The configured folder; a relative one is inside PARLEY_HOME."""
    return (Path(config.home) / config.outputs_dir).resolve()


def artifact_path(root: Path, flow: str, execution_id: str) -> Path:
    """Where a result goes; names come from us alone, and are refused when they could leave the root.

    Raises ValidationError for a name with anything but letters, digits, dot, dash and underscore.
    """
    flow_name = flow.replace("/", "-")
    for field, name in (("flow", flow_name), ("execution_id", execution_id)):
        if not SAFE.match(name) or ".." in name:
            raise ValidationError(f"{field} {name!r} must match {SAFE.pattern}", param=field)
    return root / f"{flow_name}_flows" / f"{execution_id}.json"


def prune_outputs(root: Path, older_than_s: float, now: float) -> int:
    """Remove results that were written so long before ``now`` (Unix time), and what killed runners left
    half-written; how many.

    Blocking: call it in a thread. Raises StoreError. In the flows' folders, files with other names stay.
    """
    removed = 0
    try:
        for folder in root.glob("*_flows"):
            if folder.is_symlink():
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    is_ours = _OURS.match(entry.name) and entry.is_file(follow_symlinks=False)
                    if is_ours and entry.stat(follow_symlinks=False).st_mtime < now - older_than_s:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(entry.path)
                            removed += 1
    except OSError as error:
        raise StoreError(f"{root} cannot be pruned: {error}", param="outputs_dir") from error
    return removed


@dataclass(frozen=True, slots=True)
class PreparedArtifact:
    """A result that lies beside its place, and is to be seen there once the run's end is committed.

    Before that a runner that has lost the run may hold it too: its end must not replace the other's.
    """

    path: Path
    temporary: str

    def publish(self) -> None:
        """Put it in its place: a rename, so that it is there whole or not at all. Raises OSError."""
        os.replace(self.temporary, self.path)

    def discard(self) -> None:
        """Remove it; nothing is raised, for something else has gone wrong already."""
        with contextlib.suppress(OSError):
            os.unlink(self.temporary)


def prepare_artifact(root: Path, result: RunResult, request: RunRequest) -> PreparedArtifact:
    """Write request and result as JSON beside their place.

    Blocking: call it in a thread. Raises StoreError when the folder cannot be written.
    """
    path = artifact_path(root, result.flow, result.run_id)
    body = Artifact.model_construct(
        **{**result.__dict__, "artifact": str(path)}, execution_id=result.run_id, request=request
    ).model_dump_json(indent=2)
    # Strings and plain calls: pathlib's objects and its resolving took most of the time of a small file.
    folder = str(path.parent)
    if os.path.islink(folder):
        raise ValidationError(f"{folder} is a link, which may lead outside {root}", param="outputs_dir")
    temporary = f"{folder}/.{path.name}.{secrets.token_hex(4)}"
    try:
        try:
            descriptor = os.open(temporary, _NEW_FILE, 0o600)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            descriptor = os.open(temporary, _NEW_FILE, 0o600)
        with open(descriptor, "wb", buffering=0) as file:
            file.write(body.encode())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise StoreError(f"the result cannot be written to {path}: {error}", param="outputs_dir") from error
    return PreparedArtifact(path, temporary)
