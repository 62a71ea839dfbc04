"""Server-sent events, as a stream of data lines."""

from __future__ import annotations

from registries.contracts.errors import Fault, ProviderError

# An event larger than this is no event of a language model; without a bound a drip fills the memory.
MAX_EVENT_BYTES = 4 * 1024 * 1024


class SseDecoder:
    """Feed bytes as they come, get the ``data`` of each finished event; other fields are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, block: bytes) -> list[str]:
        """Data of the events that this block finished; an endless one raises ProviderError(bad_response)."""
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ProviderError(f"an event of the stream is over {MAX_EVENT_BYTES} bytes", Fault.BAD_RESPONSE)
        events: list[str] = []
        for raw in lines:
            line = raw.rstrip(b"\r").decode("utf-8", errors="replace")
            if not line and self._data:
                events.append("\n".join(self._data))
                self._data = []
            elif line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
        return events

    def flush(self) -> list[str]:
        """An event that the stream's end left without its empty line."""
        return self.feed(b"\n\n")
