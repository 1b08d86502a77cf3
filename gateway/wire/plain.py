"""Convert the frozen values of `spec` to plain data for the channel, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from ..spec import Capabilities, ModelSpec
from ..wording import a_type
from .values import WireError, fault_of

MAX_METHODS, MAX_NAME, MAX_PORTS = 256, 128, 256
MAX_LINE = 512  # characters of an entry in `asked`
MAX_DEPTH = 64  # nesting of a schema; Pydantic's schemas use references and stay flat


def from_spec(spec: ModelSpec) -> dict[str, Any]:
    return _plain(spec)


def to_spec(value: dict[str, Any]) -> ModelSpec:
    config = value["config"]  # unconverted: the keys of a YAML file need not be strings
    spec = msgspec.convert({**value, "config": {}}, ModelSpec, dec_hook=_from_plain)
    return replace(spec, config=config)


def from_capabilities(capabilities: Capabilities) -> dict[str, Any]:
    return _plain(capabilities)


def to_capabilities(value: Any) -> Capabilities:
    """Check and convert the capabilities that a worker reports; the worker is not trusted.

    Raises:
        WireError: wrong shape, or more than any class has.
    """
    try:
        found = msgspec.convert(value, Capabilities)
    except msgspec.ValidationError as error:
        raise WireError(f"bad capabilities: {fault_of(error)}") from error
    if len(found.methods) > MAX_METHODS or len(found.ports) > MAX_PORTS:
        raise WireError(f"capabilities of {len(found.methods)} methods and {len(found.ports)} ports")
    if not all(method.name.isidentifier() and len(method.name) <= MAX_NAME for method in found.methods):
        raise WireError("capabilities with an invalid method name")
    if len(found.asked) > MAX_METHODS or not all(_is_line(text) for each in found.asked.items() for text in each):
        raise WireError("capabilities with a question that is not one line")
    if not all(0 < port < 65536 for port in found.ports):
        raise WireError("capabilities with an invalid port")
    _check_shown(value)
    return found


def to_health(value: object) -> bool | None:
    """Check the answer of `is_healthy`; None means no opinion.

    Raises:
        WireError: it is something else.
    """
    if value is None or isinstance(value, bool):
        return value
    raise WireError(f"{a_type(value)} about health")


def _is_line(text: str) -> bool:
    """Return whether the text may appear in one of our error messages."""
    return len(text) <= MAX_LINE and text.isprintable()


def _check_shown(value: Any) -> None:
    """Check that the value, which is shown to all clients, is JSON and not too deep for the code that walks it."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                if not all(isinstance(key, str) for key in one):
                    raise WireError("capabilities with a key that is not a string")
                inside += one.values()
            elif isinstance(one, list):
                inside += one
            elif one is not None and not isinstance(one, (str, int, float)):
                raise WireError(f"capabilities with {a_type(one)}")
        level = inside
        if not level:
            return
    raise WireError(f"capabilities with more than {MAX_DEPTH} levels of nesting")


def _plain(value: Any) -> dict[str, Any]:
    result = msgspec.to_builtins(value, enc_hook=_to_plain, str_keys=False)
    assert isinstance(result, dict)
    return result


def _to_plain(value: Any) -> Any:
    # YAML values that JSON does not have, and the paths of a spec.
    return dict(value) if hasattr(value, "keys") else str(value)


def _from_plain(cls: type, value: Any) -> Any:
    if cls is Path:
        return Path(value)
    raise NotImplementedError(cls)
