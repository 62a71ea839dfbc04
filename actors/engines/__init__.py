"""Engines: every source of tokens behind the Engine protocol."""
