"""Settings of every unit test."""

from __future__ import annotations

import hypothesis

# Time says nothing about a pure function on a machine that does other things too.
hypothesis.settings.register_profile("house", deadline=None, database=None)
hypothesis.settings.load_profile("house")
