"""Check the id of a model: the path of its directory below a root."""

from __future__ import annotations

import re

SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_ID = 128
RESERVED = frozenset("v1 v2 predict loaded schema status logs hot-reload".split())  # parts of routes


def id_problem(name: str) -> str | None:
    """Return why `name` cannot be the id of a model, None if it can."""
    if len(name) > MAX_ID:
        return f"the id is longer than {MAX_ID} characters"
    for segment in name.split("/"):
        if not SEGMENT.fullmatch(segment):
            return f"{segment!r} is not a model name: letters, digits, '.', '_', '-', starting with a letter or digit"
        if segment in RESERVED:
            return f"{segment!r} is part of a route and not a model name"
    return None
