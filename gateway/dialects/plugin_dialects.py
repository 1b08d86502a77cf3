"""Complete the dialects of plugins, so that the gateway can rely on them.

Attributes that a dialect lacks are taken from `Dialect`. So are attributes that cannot be used, such as a schema that
raises: `plugin_checks.py` reports them, and the rest of the dialect is used.
"""

from __future__ import annotations

from typing import Any

from ..plugin_checks import left_out
from .base import Dialect

_NAMES = tuple(name for name in dir(Dialect) if not name.startswith("_"))


def completed(dialect: Any) -> Dialect:
    """Return the dialect with all attributes that the gateway uses."""
    if isinstance(dialect, Dialect) and not left_out(dialect):
        return dialect
    return _Completed(dialect)


class _Completed(Dialect):
    def __init__(self, dialect: Any) -> None:
        unusable = left_out(dialect)
        for name in _NAMES:
            if name not in unusable and hasattr(dialect, name):
                setattr(self, name, getattr(dialect, name))
