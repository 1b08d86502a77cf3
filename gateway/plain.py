"""The frozen values of `spec` as plain data for the channel, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from .spec import Capabilities, ModelSpec
from .wire import WireError
from .wording import a_type

MAX_METHODS, MAX_NAME, MAX_PORTS = 256, 128, 256
MAX_LINE = 512  # characters of what is asked about a class
MAX_DEPTH = 64  # of a schema; those of Pydantic refer to their definitions and stay flat


def from_spec(spec: ModelSpec) -> dict[str, Any]:
    return _plain(spec)


def to_spec(value: dict[str, Any]) -> ModelSpec:
    config = value["config"]  # as it is: the keys of a YAML file need not be strings
    spec = msgspec.convert({**value, "config": {}}, ModelSpec, dec_hook=_from_plain)
    return replace(spec, config=config)


def from_capabilities(capabilities: Capabilities) -> dict[str, Any]:
    return _plain(capabilities)


def to_capabilities(value: Any) -> Capabilities:
    """What a worker says its model can do; it is checked, for a worker may say anything.

    Raises:
        WireError: it does not have that shape, or is more than any class has.
    """
    try:
        found = msgspec.convert(value, Capabilities)
    except msgspec.ValidationError as error:
        raise WireError(f"bad capabilities: {error}") from error
    if len(found.methods) > MAX_METHODS or len(found.ports) > MAX_PORTS:
        raise WireError(f"capabilities of {len(found.methods)} methods and {len(found.ports)} ports")
    if not all(method.name.isidentifier() and len(method.name) <= MAX_NAME for method in found.methods):
        raise WireError("capabilities with a method whose name is none")
    if len(found.asked) > MAX_METHODS or not all(_is_line(text) for each in found.asked.items() for text in each):
        raise WireError("capabilities with a question that is no line")
    if not all(0 < port < 65536 for port in found.ports):
        raise WireError("capabilities with a port that is none")
    _check_shown(value)
    return found


def _is_line(text: str) -> bool:
    """It stands in an error of ours."""
    return len(text) <= MAX_LINE and text.isprintable()


def _check_shown(value: Any) -> None:
    """What is kept and shown to all clients is JSON, and not too deep for the code that walks it."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inside: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                if not all(isinstance(key, str) for key in one):
                    raise WireError("capabilities with a key that is no text")
                inside += one.values()
            elif isinstance(one, list):
                inside += one
            elif one is not None and not isinstance(one, (str, int, float)):
                raise WireError(f"capabilities with {a_type(one)}")
        level = inside
        if not level:
            return
    raise WireError(f"capabilities with more than {MAX_DEPTH} values inside one another")


def _plain(value: Any) -> dict[str, Any]:
    result = msgspec.to_builtins(value, enc_hook=_to_plain, str_keys=False)
    assert isinstance(result, dict)
    return result


def _to_plain(value: Any) -> Any:
    # What YAML can hold beyond JSON, and the paths of a spec.
    return dict(value) if hasattr(value, "keys") else str(value)


def _from_plain(cls: type, value: Any) -> Any:
    if cls is Path:
        return Path(value)
    raise NotImplementedError(cls)
