"""`parley token`."""

from __future__ import annotations

from registries.contracts.errors import NotFound
from serve_app.cli.command import command
from serve_app.cli.options import AsJson


def token(as_json: AsJson = False) -> None:
    """Print what the Ray dashboard and `ray job submit` ask for. Whoever has it can run any code here."""
    with command(as_json) as cmd:
        from actors.ray_token import read_ray_token

        try:
            text = read_ray_token(cmd.settings.runtime_config())
        except FileNotFoundError:
            raise NotFound(f"no runtime was ever started from {cmd.home.path}; first: parley up") from None
        if as_json:
            cmd.output.json({"token": text})
        else:
            cmd.output.line(text)
            cmd.output.note(
                "for the dashboard, or: RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(parley token) ray job submit …"
            )
