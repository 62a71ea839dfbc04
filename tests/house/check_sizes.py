"""The size limits of the house: no file over 400 lines, no function over 60 (tests excepted)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("serve_app", "actors", "flows", "registries", "benchmarks", "deploy")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
FORBIDDEN_NAMES = ("utils", "helpers", "helper", "manager", "managers", "misc")


def violations(path: Path) -> list[str]:
    """Every breach of the limits in one file."""
    text = path.read_text(encoding="utf-8")
    shown = path.relative_to(ROOT)
    found = []
    lines = text.count("\n")
    if lines > MAX_FILE_LINES:
        found.append(f"{shown}: {lines} lines (limit {MAX_FILE_LINES})")
    if path.stem in FORBIDDEN_NAMES or path.stem.startswith("base_"):
        found.append(f"{shown}: a file is named after its one public thing, not {path.stem!r}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(
                    f"{shown}:{node.lineno}: {node.name} has {length} lines (limit {MAX_FUNCTION_LINES})"
                )
    return found


def main() -> int:
    """Print every breach; the exit status says whether there is one."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    found = [line for path in files for line in violations(path)]
    print("\n".join(found) or f"sizes: {len(files)} files within the limits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
