"""What a dialect is: a request read into `Prepared`, and an encoder for its answer, streamed or whole."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import BadRequest, GatewayError


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was checked. `inputs` is what the Model's method gets."""

    model: str | None
    inputs: dict[str, Any]
    stream: bool = False
    n: int = 1
    options: dict[str, Any] = field(default_factory=dict)  # the dialect's own notes for its encoder


@dataclass(frozen=True, slots=True)
class Context:
    """What an answer needs to know beside its content."""

    model: str  # the name the client sent
    hex_id: str  # 32 hex digits, behind the dialect's prefix
    created: int  # seconds


class Encoder(Protocol):
    """One answer under way. `items` are values of one run of the Model, plain data from the wire."""

    def start(self) -> bytes:
        """The first events of a stream; sent when the first item is there."""

    def feed(self, items: list[Any], run: int = 0) -> bytes:
        """The events of some items.

        Raises:
            GatewayError: the model's output makes no sense, or says that it failed.
        """

    def finish(self) -> bytes:
        """What ends a good stream."""

    def fail(self, error: GatewayError) -> bytes:
        """What ends a failed one: it never looks finished."""

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The body of an answer that was not streamed, and headers about it."""

    @property
    def is_raw(self) -> bool:
        """The model frames its own events: the stream is passed through as it is."""

    def usage(self) -> tuple[int, int, str] | None:
        """Prompt tokens, completion tokens, finish reason; None where a dialect has none."""


class Dialect(Protocol):
    ping: bytes  # what keeps a silent stream alive

    def read(self, body: dict[str, Any]) -> Prepared:
        """Check and normalise a request.

        Raises:
            BadRequest: with the JSON path of what is wrong in `param`.
        """

    def encoder(self, prepared: Prepared, context: Context) -> Encoder: ...


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "a boolean", list: "an array", dict: "an object"}


def take(body: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """An optional field of a JSON type; null is absent.

    Raises:
        BadRequest: invalid_type.
    """
    value = body.get(name)
    if value is None:
        return default
    if kind is float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    elif kind is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    else:
        good = isinstance(value, kind)
    if not good:
        raise wrong_type(name, _NAMES[kind], value)
    return value


def take_range(body: dict[str, Any], name: str, least: int, most: int | None, default: Any = None) -> Any:
    """An optional integer within bounds."""
    value = take(body, name, int, default)
    if value is not None and (value < least or (most is not None and value > most)):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise BadRequest(f"'{name}' must be {bounds}, not {value}", param=name)
    return value


def wrong_type(name: str, expected: str, value: Any) -> BadRequest:
    got = "null" if value is None else next((text for kind, text in _NAMES.items() if type(value) is kind), "that")
    return BadRequest(f"'{name}' must be {expected}, not {got}", param=name, code="invalid_type")


def missing(name: str) -> BadRequest:
    return BadRequest(f"missing required parameter: '{name}'", param=name, code="missing_required_parameter")
