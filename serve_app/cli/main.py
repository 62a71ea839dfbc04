"""`parley`: the commands, each in a file of its own."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from serve_app.cli.backup import backup
from serve_app.cli.direct import direct
from serve_app.cli.doctor import doctor
from serve_app.cli.down import down
from serve_app.cli.flows import flows
from serve_app.cli.models import models
from serve_app.cli.restore import restore
from serve_app.cli.run import run
from serve_app.cli.runs import runs
from serve_app.cli.stats import stats
from serve_app.cli.status import status
from serve_app.cli.token import token
from serve_app.cli.up import up


class Commands(TyperGroup):
    """The root, which sees the words for all commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises BadParameter for words that are no text: no JSON, URL or terminal takes them later."""
        for word in args:
            try:
                word.encode()
            except UnicodeEncodeError:
                raise typer.BadParameter(f"{word!a} is not valid UTF-8", ctx=ctx) from None
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Commands,
    name="parley",
    help="Several models draft, criticise, vote and merge, on a Ray cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 ok, 1 failed, 2 wrong input, 3 not running, 4 start or stop failed, "
    "5 key refused, 6 the run waits for you, 7 the run was cancelled, 130 interrupted.",
)
for _name, _command in (
    ("up", up),
    ("down", down),
    ("status", status),
    ("run", run),
    ("stats", stats),
    ("direct", direct),
    ("models", models),
    ("flows", flows),
    ("doctor", doctor),
    ("backup", backup),
    ("restore", restore),
    ("token", token),
):
    app.command(_name)(_command)
app.add_typer(runs)


def main() -> None:
    """The entry point of the distribution."""
    app()


if __name__ == "__main__":
    main()
