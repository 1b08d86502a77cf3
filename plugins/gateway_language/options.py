"""Read options of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway import ConfigError


def whole(options: Mapping[str, Any], name: str) -> int | None:
    """Return an option that must be a whole number. Raises `ConfigError`."""
    value = options.get(name)
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigError(f"options.{name} must be a whole number of at least 1, not {value!r}")
    return value
