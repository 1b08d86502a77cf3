"""Checks for the values that plugins return or register. Each returns None, or what is wrong and what was expected.

A problem is reported with the plugin's name, at the start; other plugins are not affected.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from . import json_schemas
from .access.callers import Caller
from .devices.device import Device
from .environments.distributions import candidates
from .errors import ConfigError
from .spec import Endpoint, Format, ModelSpec
from .wording import a_type, listed, with_article

LONGEST_NAME = 1024  # characters of a caller's name: metrics keep a thousand of them
LONE = re.compile("[\ud800-\udfff]").search
VERBS = ("POST", "GET")
SCHEMAS = ("request_schema", "response_schema", "event_schema")
# Optional attributes of a dialect → their types. Methods are checked by name.
_KINDS: dict[str, type] = {
    "ping": bytes,
    "response_type": str,
    "protocol": str,
    "ending": type,
    "keeps": bool,
    "takes_ids": bool,
    "value_decides": bool,
    "body": str,
}
BODIES = ("json", "form")
_METHODS = ("read", "encoder")


def endpoint_fault(value: Any) -> str | None:
    if not isinstance(value, Endpoint):
        return f"register() was given {a_type(value)}; expected gateway.Endpoint(path, method, dialect)"
    for name in ("path", "method", "dialect", "summary"):
        if not isinstance(given := getattr(value, name), str):
            return f"Endpoint {name}={given!r}: expected a string"
    if not value.method.isidentifier() or value.method.startswith("_"):
        return f"{value.path}: method={value.method!r}: expected the name of a public method"
    if value.verb not in VERBS:
        return f"{value.path}: verb={value.verb!r}: expected {' or '.join(map(repr, VERBS))}"
    for name in ("input_schema", "output_schema"):
        if (given := getattr(value, name)) is not None and (wrong := json_schemas.fault(given)) is not None:
            return f"{value.path}: {name} {wrong}"
    if value.verb == "GET" and value.input_schema is not None:
        return f"{value.path}: input_schema is for bodies, and a GET has none"
    return None


def format_fault(value: Any) -> str | None:
    if not isinstance(value, Format):
        return f"is {a_type(value)}; expected a gateway.Format(files=…)"
    for name in ("files", "install"):
        if not isinstance(given := getattr(value, name), str):
            return f"has {name}={given!r}; expected a string"
    for name in ("routes", "needs"):
        given = getattr(value, name)
        if not isinstance(given, tuple) or not all(isinstance(each, str) for each in given):
            return f"has {name}={given!r}; expected a tuple of strings"
    return None


def dialect_fault(value: Any) -> str | None:
    if isinstance(value, type):
        return f"is the class {value.__name__}; expected an instance of it: {value.__name__}()"
    lacks = [name for name in _METHODS if not callable(_attribute(value, name))]
    if lacks:
        return f"is {a_type(value)} without {' and '.join(lacks)}; expected an instance of a gateway.Dialect"
    return None


def left_out(dialect: Any) -> dict[str, str]:
    """Return the invalid attributes of a dialect with reasons; the dialect is served without them."""
    found = {}
    for name in (*SCHEMAS, *_KINDS):
        try:
            value = getattr(dialect, name)
        except AttributeError:
            continue
        except Exception as error:
            found[name] = f"raised {type(error).__name__}: {error}"
            continue
        if name in SCHEMAS:
            if not is_schema(value):
                found[name] = "is not a JSON schema of an object"
        elif not isinstance(value, _KINDS[name]):
            found[name] = f"is {a_type(value)}; expected {with_article(_KINDS[name].__name__)}"
        elif name == "body" and value not in BODIES:
            found[name] = f"is {value!r}; expected {' or '.join(map(repr, BODIES))}"
    return found


def is_schema(value: Any) -> bool:
    """Return whether the API document can show this schema."""
    if not isinstance(value, dict) or not isinstance(value.get("properties", {}), dict):
        return False
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(value.get("example", {}), dict)


def runner_fault(value: Any) -> str | None:
    return None if callable(value) else f"is {a_type(value)}; expected a class or a function: Launch → Replica"


def devices(value: Any) -> Iterable[Any]:
    """Return an iterable over what `find_devices` returned.

    Raises:
        TypeError: it is not a list.
    """
    if value is None:
        return ()
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"returned {a_type(value)}; expected a list of gateway.Device")
    return value


def device_fault(value: Any, others: Collection[str]) -> str | None:
    if not isinstance(value, Device):
        return f"{a_type(value)} in the list; expected a gateway.Device"
    if not isinstance(value.id, str) or not value.id:
        return f"a Device with id={value.id!r}; expected a string that names it"
    if type(value.total) is not int or value.total <= 0:
        return f"Device {value.id!r}: total={value.total!r}; expected its memory in bytes"
    return f"Device {value.id!r} is listed twice; the first one counts" if value.id in others else None


def caller(said: Any) -> Caller | None:
    """Return the caller that a plugin's `authorize` returned.

    Raises:
        ValueError: it has no name to tell it from others, or one that logs, metrics and the store cannot write.
    """
    named = Caller(said) if isinstance(said, str) else said
    if named is None or (isinstance(named, Caller) and _is_name(named.name)):
        return named
    raise ValueError(
        f"returned {repr(said)[:200]}: expected None, a name, or a gateway.Caller with a name, which is a text of at "
        f"most {LONGEST_NAME} characters without lone surrogates"
    )


def _is_name(name: Any) -> bool:
    """Whether it is a text: who asks may choose it, and JSON may contain half a character."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        return False
    return name.isascii() or LONE(name) is None


def check_needs(path: Path, spec: ModelSpec) -> None:
    """Raise `ConfigError` with the install command if a module that the model needs is missing."""
    if all(map(is_here, spec.needs)):
        return
    framework = next(iter(candidates(spec.needs[0])), spec.needs[0])
    fix = f"run: {spec.install}" if spec.install else f"it needs {listed(spec.needs)}"
    raise ConfigError(f"{path} looks like {framework}; {fix}")


def is_here(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # its package is missing, or was loaded in an unusual way
        return False


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # a property of the plugin may raise anything
        return None
