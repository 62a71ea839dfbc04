"""Server-sent events as the runtime writes them, out of bytes (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event: its type, its data, and the id to resume after."""

    type: str
    data: str
    id: str | None = None


@dataclass(slots=True)
class EventStreamParser:
    """Feed bytes as they come; an event comes out at each empty line. Comments are heartbeats.

    Lines end with LF or CRLF and nothing else: splitting text the way Python does would cut model text at
    U+2028 and its like.
    """

    _open: bytes = b""
    _type: str = "message"
    _id: str | None = None
    _data: list[str] = field(default_factory=list)
    _begun: bool = False

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of a further event has come yet."""
        return not self._open and not self._begun

    def feed(self, piece: bytes) -> Iterator[StreamEvent]:
        """The events that this piece completes."""
        *lines, self._open = (self._open + piece).split(b"\n")
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> StreamEvent | None:
        if not line:
            return self._flush()
        name, _, value = line.partition(":")
        self._begun = self._begun or name != ""
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value
        return None

    def _flush(self) -> StreamEvent | None:
        data, type_ = self._data, self._type
        self._data, self._type, self._begun = [], "message", False
        return StreamEvent(type_, "\n".join(data), self._id) if data else None
