"""For all tests: hypothesis never judges by the clock, for the machine may be busy."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

collect_ignore = ["clients"]  # they run in environments of their own: `make test-clients`

settings.register_profile("gateway", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("gateway"), derandomize=True)  # of each run the same examples
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gateway"))
