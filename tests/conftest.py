"""For all tests: hypothesis never judges by the clock, for the machine may be busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("gateway", deadline=None, max_examples=60)
settings.load_profile("gateway")
