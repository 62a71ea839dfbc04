"""What every command starts from: its output, the settings, and the last line of defence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic

from registries.contracts.errors import ParleyError
from serve_app.bad_input import describe_bad_input
from serve_app.cli.guard import guard
from serve_app.cli.output import Output
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.settings import Settings, load_settings

if TYPE_CHECKING:
    from serve_app.client.client import Client

Request = TypeVar("Request", bound=pydantic.BaseModel)


class Command:
    """One invocation. ``overrides`` are flags that stand for settings, by the settings' names."""

    def __init__(self, as_json: bool = False, overrides: Mapping[str, object] | None = None) -> None:
        self.output = Output(as_json)
        self._overrides = {name: str(value) for name, value in (overrides or {}).items() if value is not None}

    @cached_property
    def settings(self) -> Settings:
        """Checked settings; raises ValidationError."""
        return load_settings(overrides=self._overrides)

    @cached_property
    def home(self) -> RuntimeHome:
        """The PARLEY_HOME of the settings."""
        return RuntimeHome(Path(self.settings.home))

    def client(self) -> Client:
        """A client of the running runtime; raises Unauthorized when this home was never used."""
        from serve_app.client.client import Client
        from serve_app.client.connection import find_connection
        from serve_app.client.retries import Retries

        # One line for each cut, however many tries it takes: those after the first come with no news.
        def tell(error: ParleyError, wait_s: float, attempt: int) -> None:
            if attempt == 1:
                self.output.note(f"{error.message}; connecting again …", "yellow")

        return Client(connection=find_connection(settings=self.settings), retries=Retries(on_reattach=tell))

    def crash_log(self) -> Path | None:
        """Where a fault of ours is written down; None when even the settings are wrong."""
        try:
            return self.home.logs_dir / "crash.log"
        except ParleyError:
            return None


@contextmanager
def command(as_json: bool = False, overrides: Mapping[str, object] | None = None) -> Iterator[Command]:
    """The body of a command, guarded."""
    made = Command(as_json, overrides)
    with guard(made.output, made.crash_log):
        yield made


def request_from(model: type[Request], **values: Any) -> Request:
    """The request out of the options that were given; raises ValidationError naming field and value."""
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return model.model_validate(given)
    except pydantic.ValidationError as error:
        raise describe_bad_input(error, model) from None
