"""``python -m actors.evaluation``: see ``--help``, and docs/evaluation.md."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from actors.evaluation.batch import Prepared, evaluate, prepare
from actors.evaluation.command_line import read_options
from actors.evaluation.live_runtime import attached, find_config, read_config
from registries.catalog import Catalog
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import NotFound, ParleyError
from registries.loader import load_catalog

OK, SOME_FAILED, WRONG_INPUT, NO_RUNTIME = 0, 1, 2, 3


def run(arguments: Sequence[str] | None) -> int:
    """Check everything, then evaluate on the live runtime; the exit status."""
    options = read_options(arguments)
    config = read_config(find_config(options.config, dict(os.environ)))
    catalog = load_catalog(config)
    prepared = prepare(options, config, catalog, Path.cwd())
    return asyncio.run(evaluate_live(prepared, config, catalog))


async def evaluate_live(prepared: Prepared, config: RuntimeConfig, catalog: Catalog) -> int:
    """Attached to the cluster from here on."""
    async with attached(config, catalog) as runtime:
        return OK if await evaluate(prepared, runtime, print_line) == 0 else SOME_FAILED


def print_line(text: str) -> None:
    """At once: a job's log is read while it runs."""
    print(text, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """One clear message for everything that is wrong; never a stack trace for a user's mistake."""
    try:
        return run(arguments)
    except ParleyError as error:
        print(f"evaluation: {error.message}", file=sys.stderr, flush=True)
        if isinstance(error, NotFound):
            return NO_RUNTIME
        return WRONG_INPUT if error.code == "invalid_request" else SOME_FAILED
    except KeyboardInterrupt:
        print("evaluation: interrupted; the same command goes on where it ended", file=sys.stderr, flush=True)
        return 130


if __name__ == "__main__":
    sys.exit(main())
