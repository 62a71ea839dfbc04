"""Server-sent events on the wire (WHATWG HTML, section 9.2)."""

from __future__ import annotations

HEARTBEAT = b": keep-alive\n\n"


def frame(event: str, data: bytes, id: int | None = None) -> bytes:
    """One event. ``data`` is JSON on one line, so it never needs splitting."""
    name = event.encode("ascii")
    if id is None:
        return b"event: %b\ndata: %b\n\n" % (name, data)
    return b"event: %b\nid: %d\ndata: %b\n\n" % (name, id, data)
