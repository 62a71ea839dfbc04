"""The whole test run of `make test`: suites one after another, then the coverage of all processes.

Unit and conformance need no cluster, nor do the engine's fault tests, whose engines are processes of their
own; integration and chaos share one; the overload has one; e2e starts the runtime by its commands, and the
faults of two nodes have a runtime of their own; the processes of these three are not measured. One pytest a
suite, so that no two clusters ever share the machine's two cores. Only the first two, which have none, are
shared between two processes.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.server_search import UNTESTED_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
_ENGINE_FAULTS = "tests/chaos/test_engine_*.py"
_TWO_NODES = "tests/chaos/test_two_nodes.py"
_OVERLOAD = "tests/chaos/test_overload.py"
_IN_TWO_PROCESSES = ("--numprocesses=2", "--dist=loadfile")
"""A file is one process's, with the engines that it loads."""
_UNMEASURED = frozenset({"overload", "end to end"})
"""Without coverage: it would be part of what the overload finds, and slows a dozen starts of a whole runtime,
which go where the other suites have been."""
SUITES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("unit and conformance", ("tests/unit", "tests/conformance", *_IN_TWO_PROCESSES)),
    (
        "engine faults",
        (*sorted(str(f.relative_to(ROOT)) for f in ROOT.glob(_ENGINE_FAULTS)), *_IN_TWO_PROCESSES),
    ),
    (
        "integration and chaos",
        (
            *("tests/integration", "tests/chaos", f"--ignore-glob={_ENGINE_FAULTS}"),
            *(f"--ignore={_TWO_NODES}", f"--ignore={_OVERLOAD}"),
        ),
    ),
    ("overload", (_OVERLOAD,)),
    ("end to end", ("tests/e2e", _TWO_NODES)),
)
COVERAGE_FLOOR_PERCENT = 90
_SUITE_LIMIT_S = 2400.0
"""Twice what the longest takes on a slow machine: a suite that takes longer hangs where no test's limit
reaches, such as in a thread that a test left behind."""
_INTERRUPTED_S = 120.0


def main(arguments: list[str]) -> int:
    """Run every suite even after a failure, so that one run tells all; returns the exit status."""
    wanted = arguments or [name for name, _ in SUITES]
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as untested:
        os.environ[UNTESTED_VARIABLE] = untested.name
        status = _run_suites(wanted)
        print(untested.read(), end="", flush=True)
    return status


def _run_suites(wanted: list[str]) -> int:
    environment = measured_environment()
    for old in ROOT.glob(".coverage*"):
        old.unlink()
    outcomes: dict[str, tuple[int, float]] = {}
    for name, parts in SUITES:
        present = [part for part in parts if part.startswith("--") or (ROOT / part).exists()]
        if name not in wanted or not present:
            continue
        print(f"== {name}", flush=True)
        started = time.monotonic()
        status = _run_pytest(present, None if name in _UNMEASURED else environment)
        outcomes[name] = (status, time.monotonic() - started)
    for name, (status, seconds) in outcomes.items():
        print(f"== {name}: {'passed' if status == 0 else f'FAILED (status {status})'} in {seconds:.0f} s")
    failed = any(status for status, _ in outcomes.values())
    return 1 if failed else report_coverage(complete=len(outcomes) == len(SUITES))


def _run_pytest(parts: list[str], environment: dict[str, str] | None) -> int:
    """Its exit status; one that hangs is interrupted, so that it ends its servers, then killed."""
    command = [sys.executable, "-m", "pytest", "--durations=12", *parts]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as pytest:
        try:
            return pytest.wait(_SUITE_LIMIT_S)
        except subprocess.TimeoutExpired:
            print(f"== hangs: interrupted after {_SUITE_LIMIT_S:.0f} s", flush=True)
            pytest.send_signal(signal.SIGINT)
        try:
            pytest.wait(_INTERRUPTED_S)
        except subprocess.TimeoutExpired:
            pytest.kill()
        return 1


def measured_environment() -> dict[str, str]:
    """The environment in which sitecustomize measures every Python process."""
    boot = ROOT / "tests" / "coverage_boot"
    paths = [str(boot), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PARLEY_COVERAGE_RC": str(ROOT / "pyproject.toml"),
        "PARLEY_COVERAGE_DATA": str(ROOT / ".coverage"),
    }


def report_coverage(complete: bool) -> int:
    """Combine the files of all processes; below the floor is a failure when every suite ran."""
    if not any(ROOT.glob(".coverage.*")):
        print("nothing was measured: no coverage")
        return 1 if complete else 0
    _drop_torn_files()
    subprocess.run([sys.executable, "-m", "coverage", "combine", "--quiet"], cwd=ROOT, check=True)
    floor = COVERAGE_FLOOR_PERCENT if complete else 0
    return subprocess.run(
        [sys.executable, "-m", "coverage", "report", f"--fail-under={floor}"], cwd=ROOT
    ).returncode


def _drop_torn_files() -> None:
    """Killed while it saves, a process leaves a file that coverage cannot combine: it has no journal."""
    torn = [file for file in ROOT.glob(".coverage.*") if not _is_whole(file)]
    for file in torn:
        file.unlink()
    if torn:
        print(f"coverage: {len(torn)} files of killed processes were torn and are left out")


def _is_whole(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(file)) as connection:
            return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
