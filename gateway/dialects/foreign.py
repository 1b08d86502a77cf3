"""Dialects of plugins that do not extend `Dialect`: what they leave out is as that class has it."""

from __future__ import annotations

from typing import Any

import msgspec

from .base import Dialect

_NAMES = tuple(name for name in dir(Dialect) if not name.startswith("_"))


def completed(dialect: Any) -> Dialect:
    """The dialect with everything that the gateway asks of one."""
    return dialect if isinstance(dialect, Dialect) else _Completed(dialect)


class _Completed(Dialect):
    def __init__(self, dialect: Any) -> None:
        for name in _NAMES:
            if hasattr(dialect, name):
                setattr(self, name, getattr(dialect, name))
        for name in ("request_schema", "response_schema", "event_schema"):
            if not _is_schema(getattr(self, name)):
                delattr(self, name)
        if not isinstance(self.response_type, str):
            del self.response_type


def _is_schema(value: Any) -> bool:
    """Whether the API page can show it."""
    if not isinstance(value, dict) or not isinstance(value.get("properties", {}), dict):
        return False
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(value.get("example", {}), dict)
