"""The frozen values of `spec` as plain data for the channel, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from .spec import Capabilities, ModelSpec
from .wire import WireError


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
        WireError: it does not have that shape.
    """
    try:
        return msgspec.convert(value, Capabilities)
    except msgspec.ValidationError as error:
        raise WireError(f"bad capabilities: {error}") from error


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
