"""The whole test run of `make test`: suites one after another, then the coverage of all processes.

Unit and conformance need no cluster, nor do the engine's fault tests, whose engines are processes of their
own; integration and chaos share one; the overload has one whose processes are not measured; e2e starts the
runtime by its commands, and the faults of two nodes have a runtime of their own. One pytest a suite, so that
no two clusters ever share the machine's two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.server_search import UNTESTED_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
_ENGINE_FAULTS = "tests/chaos/test_engine_*.py"
_TWO_NODES = "tests/chaos/test_two_nodes.py"
_OVERLOAD = "tests/chaos/test_overload.py"
_UNMEASURED = frozenset({"overload"})
"""Suites whose processes run without coverage, which would be part of what they find."""
SUITES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("unit and conformance", ("tests/unit", "tests/conformance")),
    ("engine faults", tuple(sorted(str(f.relative_to(ROOT)) for f in ROOT.glob(_ENGINE_FAULTS)))),
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
        status = subprocess.run(
            [sys.executable, "-m", "pytest", *present],
            cwd=ROOT,
            env=None if name in _UNMEASURED else environment,
        ).returncode
        outcomes[name] = (status, time.monotonic() - started)
    for name, (status, seconds) in outcomes.items():
        print(f"== {name}: {'passed' if status == 0 else f'FAILED (status {status})'} in {seconds:.0f} s")
    failed = any(status for status, _ in outcomes.values())
    return 1 if failed else report_coverage(complete=len(outcomes) == len(SUITES))


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
    subprocess.run([sys.executable, "-m", "coverage", "combine", "--quiet"], cwd=ROOT, check=True)
    floor = COVERAGE_FLOOR_PERCENT if complete else 0
    return subprocess.run(
        [sys.executable, "-m", "coverage", "report", f"--fail-under={floor}"], cwd=ROOT
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
