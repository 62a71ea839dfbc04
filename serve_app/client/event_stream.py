"""Server-sent events as the runtime writes them, out of lines (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event: its type, its data, and the id to resume after."""

    type: str
    data: str
    id: str | None = None


@dataclass(slots=True)
class EventLines:
    """Feed lines without their end; an event comes out at each empty line. Comments are heartbeats."""

    _type: str = "message"
    _id: str | None = None
    _data: list[str] = field(default_factory=list)

    def feed(self, line: str) -> StreamEvent | None:
        """The event that this line completes, if any."""
        if not line:
            return self._flush()
        name, _, value = line.partition(":")
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
        self._data, self._type = [], "message"
        return StreamEvent(type_, "\n".join(data), self._id) if data else None
