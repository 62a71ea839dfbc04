"""Time that passes at once, where a test would have to wait for a limit and hope to be in time for it."""

from __future__ import annotations

import asyncio


def skip_time(seconds: float) -> None:
    """Let so many seconds pass at once for the running loop: every timer that ends meanwhile is due.

    With a real limit, as short as a test can wait for, a busy machine decides whether it ends what is tested
    or what leads up to it. Clocks beside the loop's (``time.monotonic``, the database's) stand still.
    """
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]
