"""The composition root of the front door, and the process that deploys everything.

``python -m serve_app.app --config FILE`` attaches to the running Ray cluster, deploys the runtime that the
RuntimeConfig in FILE (JSON) describes, and stays until SIGTERM or the cluster's end.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pydantic
from ray import serve

from actors.flow_runner import flow_runner_app
from actors.runtime import deploy, hold
from registries.contracts.config import RuntimeConfig
from registries.contracts.errors import ParleyError, ValidationError
from serve_app.auth import KeyCheck
from serve_app.bad_input import describe_bad_input
from serve_app.ingress import ingress_deployment


def build_app(config: RuntimeConfig) -> serve.Application:
    """The application "parley": Ingress bound to FlowRunner. Raises ValidationError without an API key."""
    KeyCheck(config.api_key)
    return ingress_deployment(config).bind(config.model_dump_json(), flow_runner_app(config))


def read_config(path: Path) -> RuntimeConfig:
    """The RuntimeConfig in a JSON file; raises ValidationError naming the file and what is wrong."""
    try:
        return RuntimeConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValidationError(f"{path}: {error.strerror}", param="config") from None
    except pydantic.ValidationError as error:
        wrong = describe_bad_input(error, RuntimeConfig)
        raise ValidationError(f"{path}: {wrong.message}", param=wrong.param) from None


def main(arguments: list[str] | None = None) -> int:
    """Deploy and stay; 1 with one line on stderr when the API cannot be brought up."""
    parser = argparse.ArgumentParser(
        prog="python -m serve_app.app", description="Deploy the runtime on the running Ray cluster."
    )
    parser.add_argument("--config", type=Path, required=True, help="RuntimeConfig as JSON")
    options = parser.parse_args(arguments)
    try:
        config = read_config(options.config)
        deploy(config, build_app(config))
    except ParleyError as error:
        print(error.message, file=sys.stderr)  # noqa: T201 - this is the command's output
        return 1
    hold()
    return 0


if __name__ == "__main__":
    sys.exit(main())
