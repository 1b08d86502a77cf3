"""`dialect="json"`: JSON in, JSON out, for a method with a route of its own.

The method gets the body and returns a value. If it returns an iterator, its values are streamed as server-sent events
with JSON data; a stream that ends with `event: error` has failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import GatewayError, InvalidOutput
from ..hookspecs import hookimpl
from ..wire.values import Array, Structured
from ..wording import a_type
from . import model_json
from .base import Context, Dialect, Encoder, Headers, Prepared, error_body
from .fields import take
from .output_paths import Odd
from .single_value import floats


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("json", JsonDialect())


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"model": {"type": "string", "description": "Optional if only one model serves the route"}},
}
MOST_DIMENSIONS = 64  # same as NumPy
MOST_EMPTY = 1 << 16  # empty lists, which cost a worker nothing to send
EVENT: dict[str, Any] = {"description": "A value that the method yields"}


class JsonDialect(Dialect):
    """Passes the body on unchanged. `Endpoint(…, input_schema=…)` defines what it must contain."""

    request_schema = SCHEMA
    event_schema = EVENT
    value_decides = True

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        return Prepared(take(body, "model", str), body)

    def encoder(self, prepared: Prepared, context: Context) -> JsonEncoder:
        return JsonEncoder()


class JsonEncoder(Encoder):
    def __init__(self) -> None:
        self._last: bytes | None = None  # the last value; a whole answer has only one

    def feed(self, items: list[Any], call: int = 0) -> bytes:
        out: list[bytes] = []
        for item in items:
            try:
                self._last = written(item)
            except GatewayError as error:
                if not out:
                    raise
                self.failure = error  # the output before the error is sent first
                break
            out.append(b"data: %b\n\n" % self._last)
        return b"".join(out)

    def fail(self, error: GatewayError) -> bytes:
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(error_body(error))

    def whole(self) -> tuple[bytes, Headers]:
        if self._last is None:
            raise InvalidOutput("the method gave no value")
        return self._last, []


def written(value: Any) -> bytes:
    """Return a model's value as JSON. Arrays become lists, Pydantic instances the JSON that they write.

    Raises:
        InvalidOutput: JSON cannot represent a part of it.
    """
    try:
        return msgspec.json.encode(_plain(value))
    except Odd as error:
        raise error.within(value) from None
    except (msgspec.DecodeError, TypeError) as error:
        raise InvalidOutput(f"the model's answer cannot be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Structured):
        return model_json.read(value.json)  # decoded, since a worker may send anything
    if isinstance(value, Array):
        return _nested(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise Odd(f"the model returned {value}, which JSON has no word for", value)
    if value is not None and not isinstance(value, str | int | float):
        raise Odd(f"the model returned {a_type(value)}, which has no form in JSON", value)
    return value


def _nested(array: Array) -> Any:
    """Return nested lists, or a number for an array without dimensions."""
    shape = array.shape
    if not _fits(shape, len(array.data)):
        raise Odd(f"the model returned an array whose {len(array.data)} bytes are not of its shape", array)
    if 0 in shape:
        return _empty(shape[: shape.index(0)])
    found: list[Any] | None = floats(Array((len(array.data) // 4,), array.data))
    assert found is not None
    for size in reversed(shape[1:]):
        found = [found[start : start + size] for start in range(0, len(found), size)]
    return found if shape else found[0]


def _fits(shape: tuple[int, ...], size: int) -> bool:
    """Whether this many bytes are float32 of this shape, and lists can be made of it: a worker may send anything."""
    if len(shape) > MOST_DIMENSIONS or not all(type(each) is int and each >= 0 for each in shape):
        return False
    if 0 not in shape:
        return math.prod(shape) * 4 == size
    return size == 0 and math.prod(shape[: shape.index(0)]) <= MOST_EMPTY


def _empty(shape: tuple[int, ...]) -> list[Any]:
    return [_empty(shape[1:]) for _ in range(shape[0])] if shape else []
