"""Convert single values of config.yaml as Truss does. Dependencies between values are in `rules.py`."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any

from ...settings.kinds import seconds
from .schema import Kind

CPU = re.compile(r"(\d+(?:\.\d+)?)(m?)")
MEMORY = re.compile(r"\d+(\.\d+)?([kMGTPE]|[KMGTPE]i)?")
ACCELERATOR = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?::([1-9]\d*))?")
EXPECTED: Mapping[Kind, str] = {
    "text": "a string",
    "whole": "a whole number",
    "number": "a number",
    "seconds": 'seconds, such as 0.005 or "5ms"',
    "flag": "true or false",
    "list": "a list",
    "texts": "a list of strings",
    "map": "a mapping",
}
_FLAGS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)


def convert(kind: Kind, value: Any) -> Any:
    """Return `value` converted to its kind, as leniently as Truss: "4" is a number, "true" a flag, 2 a string.

    Raises ValueError.
    """
    if kind == "any":
        return value
    if kind == "map" and isinstance(value, dict):
        return value
    if kind in ("list", "texts") and isinstance(value, list):
        return value if kind == "list" else [convert("text", item) for item in value]
    if kind == "text" and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    if kind == "flag" and (flag := _FLAGS.get(str(value).lower())) is not None:
        return flag
    if kind == "seconds":
        return seconds(value, True)
    if kind in ("whole", "number") and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError as error:  # an integer too large for a float
            raise ValueError(kind) from error
        if kind == "number":
            return number
        if number.is_integer():
            return int(number)
    raise ValueError(kind)


def accelerator_of(value: Any) -> Any:
    """Return an accelerator in Truss's normal form: "L4" or "L4:2". An invalid value is returned unchanged."""
    if isinstance(value, dict):
        name, count = value.get("accelerator"), value.get("count", 1)
        value = f"{name}:{count}" if name else None
    return re.sub(r":0*1$", "", value.strip()) or None if isinstance(value, str) else value


def jsonable(value: Any) -> Any:
    """Convert YAML values to JSON values as Truss does for its config: a date becomes a string, a set a list."""
    if isinstance(value, dict):
        return {_json_key(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(item) for item in value), key=str)
    if isinstance(value, datetime.date):  # includes datetime, a subclass
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _json_key(key: Any) -> str:
    if isinstance(key, str):
        return key
    return str(key).lower() if isinstance(key, bool) else str(jsonable(key))


def variable(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def copied(default: Any) -> Any:
    return type(default)(default) if isinstance(default, (list, dict)) else default
