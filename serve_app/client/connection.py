"""Where the runtime is and which key it takes: explicit values, else what `parley up` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registries.contracts.errors import Unauthorized
from serve_app.client.sendable import check_base_url, header_value
from serve_app.lifecycle.runtime_home import RuntimeHome
from serve_app.lifecycle.runtime_state import read_state
from serve_app.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class Connection:
    """``timeout_s`` is for one whole answer; a stream is limited by the server's heartbeat alone.

    Raises ValidationError for an address or a key that cannot be one.
    """

    base_url: str
    api_key: str
    timeout_s: float = 330.0

    def __post_init__(self) -> None:
        check_base_url(self.base_url)
        # Without a key some questions have an answer too (GET /api/ready).
        if self.api_key:
            header_value(self.api_key, "api_key")

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"x-api-key": self.api_key, "accept": "application/json"}

    def __repr__(self) -> str:
        return f"Connection({self.base_url!r})"


def find_connection(
    base_url: str | None = None, api_key: str | None = None, settings: Settings | None = None
) -> Connection:
    """The running runtime of this PARLEY_HOME, or the given address.

    The key: given, PARLEY_API_KEY, then the files that `parley up` wrote. Raises Unauthorized when
    there is none, ValidationError as Connection does.
    """
    settings = settings or load_settings()
    home = RuntimeHome(Path(settings.home))
    state = read_state(home)
    key = api_key or settings.api_key or home.saved_key()
    if not key:
        raise Unauthorized(
            f"no API key: {home.admin_key_file} does not exist yet. Run `parley up`, or set PARLEY_API_KEY",
            param="PARLEY_API_KEY",
        )
    local_url = state.api_url if state else f"http://127.0.0.1:{settings.http_port}"
    return Connection((base_url or local_url).rstrip("/"), key)
