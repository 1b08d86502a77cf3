"""Describe the differences between two states of the settings: each value before and after, but never a secret."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ..telemetry.printable import one_line

NAMES_ONLY = frozenset({"environment"})  # tables whose values may be secrets


def changes(before: Any, after: Any, prefix: str) -> str:
    """Compare two values of one settings dataclass; "" if they are equal. `prefix` begins the name of each setting."""
    return "; ".join(_changes(before, after, prefix))


def _changes(before: Any, after: Any, prefix: str) -> Iterator[str]:
    for item in fields(before):
        was, now, name = getattr(before, item.name), getattr(after, item.name), prefix + item.name
        if was == now:
            continue
        if is_dataclass(was):
            yield from _changes(was, now, f"{name}.")
        elif item.name in NAMES_ONLY:
            yield f"{name}: {_names(was or {}, now or {})}"
        elif not item.repr:
            yield f"{name} has changed"
        else:
            yield f"{name} from {_shown(was)} to {_shown(now)}"


def _names(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    told = {
        "added": now.keys() - was.keys(),
        "removed": was.keys() - now.keys(),
        "changed": {name for name in was.keys() & now.keys() if was[name] != now[name]},
    }
    return ", ".join(f"{what} {'+'.join(map(one_line, sorted(names)))}" for what, names in told.items() if names)


def _shown(value: Any) -> str:
    return "none" if value is None else one_line(json.dumps(value, default=str))
