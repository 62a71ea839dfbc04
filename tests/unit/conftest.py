"""Settings of every unit test."""

from __future__ import annotations

import hypothesis
import structlog

# Time says nothing about a pure function on a machine that does other things too.
hypothesis.settings.register_profile("house", deadline=None, database=None)
hypothesis.settings.load_profile("house")

# By default the locals of every frame are drawn beside an exception: seconds, where the frames are the app's.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
