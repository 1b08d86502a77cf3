"""Bodies of Truss-style routes: decode bytes to a Python value, encode a result to bytes.

JSON is the standard library's on purpose: its error texts, default separators, ASCII escapes and raw NaN are what
clients of Truss expect. Binary is msgpack with Truss's tags. Sources: truss/templates/shared/serialization.py and
truss_server.py of Truss 0.18.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import sys
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import json_text, unwritable_results
from .failures import BadInput, Unserializable
from .value_hints import hint

if TYPE_CHECKING:
    from ..loading.descriptor import Method

JSON = "application/json"
BINARY = "application/octet-stream"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
WHOLE = "the body"  # in errors that concern no single field


def is_binary(content_type: str) -> bool:
    return media_type(content_type) == BINARY


def media_type(content_type: str) -> str:
    """Return a content type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def read(body: bytes | memoryview, content_type: str, method: Method, strict: bool = False) -> Any:
    """Return the inputs of a method, validated if it is typed.

    Raises:
        BadInput: with Truss's text. Errors about the whole body say so; `strict` keeps Truss's words there.
    """
    typed = method.input_type
    if method.readers and (reader := method.readers.get(media_type(content_type))) is not None:
        return reader(bytes(body), content_type)
    value = unpack(body) if is_binary(content_type) else _loads(body, typed, strict)
    return value if typed is None else validate(value, typed, strict)


def _loads(body: bytes | memoryview, typed: type | None, strict: bool) -> Any:
    try:
        return json_text.loads(body)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, integers over 4300 digits
        text = str(error) if not isinstance(error, RecursionError) else "nested too deeply"
        if not body and not strict:
            text += "; the body is empty"
        if typed is not None:
            where = "`__root__`" if strict else WHOLE
            raise BadInput(f"Input Parsing Error:\n  {where}: {text}.", code="invalid_json") from error
        raise BadInput(f"Invalid JSON payload: {text}", code="invalid_json") from error


def validate(value: Any, cls: Any, strict: bool = False) -> Any:
    """Convert a decoded value to the Pydantic model that a method asks for.

    Uses Pydantic's Python mode like Truss, because some error texts differ in JSON mode.

    Raises:
        BadInput: with Truss's text, as in `read`.
    """
    try:
        return cls.model_validate(value)
    except Exception as error:
        errors = getattr(error, "errors", None)
        if errors is None:
            raise
        found = errors()
        named = [(_location(item["loc"]), item["msg"]) for item in found]
        lines = [f"  `{name}`: {text}." if name or strict else f"  {WHOLE}: {text}." for name, text in named]
        heading = "Input Parsing Errors" if len(found) > 1 else "Input Parsing Error"
        raise BadInput(f"{heading}:\n" + "\n".join(lines), param=named[0][0] or None) from error


def _location(parts: tuple[int | str, ...]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(value: Any, binary: bool) -> tuple[bytes, str]:
    """Encode a result. Returns body and content type.

    Raises:
        Unserializable: it cannot be encoded.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), BINARY
    return (pack(value), BINARY) if binary else (document(value), JSON)


def document(value: Any) -> bytes:
    """Encode a result as JSON on one line.

    Raises:
        Unserializable: it cannot be encoded.
    """
    base = _base_model()
    try:
        if base is not None and isinstance(value, base):
            return value.model_dump_json().encode()  # type: ignore[attr-defined, no-any-return]
        return _write_json(value)
    except (TypeError, ValueError, RecursionError):
        found = unwritable_results.plain(value, _JSON)
    try:
        return json.dumps(found).encode()
    except (ValueError, RecursionError) as error:
        raise Unserializable("the result cannot be written as JSON") from error


def chunker(first: Any, events: bool) -> tuple[Callable[[Any], bytes], str]:
    """Return a function that encodes the items of a stream, and its content type, chosen by the first item.

    A stream that begins with str or bytes has its author's own framing. Any other is JSON: one line or one event per
    item.
    """
    if isinstance(first, (str, bytes, bytearray, memoryview)):
        return chunk, BINARY
    return (_event, EVENTS) if events else (_line, LINES)


def chunk(item: Any) -> bytes:
    """Encode one item of a stream of str or bytes, which are sent unchanged; anything else as JSON."""
    if isinstance(item, str):
        return item.encode("utf-8", "replace")
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    return document(item)


def _line(item: Any) -> bytes:
    return document(item) + b"\n"


def _event(item: Any) -> bytes:
    return b"data: " + document(item) + b"\n\n"


def to_json(value: Any) -> Any:
    """Convert a value that JSON does not support to the form of Pydantic's JSON mode."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return value.tolist()
        if isinstance(value, numpy.generic):
            return value.item()
    base = _base_model()
    if base is not None and isinstance(value, base):
        return value.model_dump(mode="json")  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        text = value.isoformat()
        return text[:-6] + "Z" if text.endswith("+00:00") else text
    if isinstance(value, datetime.timedelta):
        return _iso_duration(value)
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, pathlib.PurePath):
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_write_json = json_text.Writer(to_json)
_JSON = unwritable_results.Form(to_json, unwritable_results.of_json, "Object of type {} is not JSON serializable")


def text(collected: bytes) -> str:
    """Return the items of a stream as one string.

    Raises:
        Unserializable: they are not text.
    """
    try:
        return collected.decode()
    except UnicodeDecodeError as error:
        told = f"Object of type bytes is not JSON serializable ({hint(collected)})"
        raise Unserializable(told) from error


def _iso_duration(value: datetime.timedelta) -> str:
    sign = "-" if value < datetime.timedelta(0) else ""
    value = abs(value)
    seconds = f"{value.seconds}.{value.microseconds:06d}".rstrip("0") if value.microseconds else str(value.seconds)
    return f"{sign}P{value.days}DT{seconds}S" if value.days else f"{sign}PT{seconds}S"


def _base_model() -> type | None:
    return getattr(sys.modules.get("pydantic"), "BaseModel", None)


# ── binary ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_TAGS: dict[bytes, Callable[[Any], Any]] = {
    b"__dt_datetime_iso__": lambda data: datetime.datetime.fromisoformat(data),
    b"__dt_date_iso__": lambda data: datetime.date.fromisoformat(data),
    b"__dt_time_iso__": lambda data: datetime.time.fromisoformat(data),
    b"__dt_timedelta__": lambda data: datetime.timedelta(data[0], data[1], data[2]),
    b"__decimal__": lambda data: decimal.Decimal(data),
    b"__uuid__": lambda data: uuid.UUID(data),
}


def unpack(body: bytes | memoryview) -> Any:
    """Decode msgpack with Truss's tags and msgpack-numpy's arrays.

    Object arrays are refused: they may contain pickles.
    """
    msgpack = _msgpack()
    try:
        return msgpack.unpackb(body, object_hook=_untag, raw=False, strict_map_key=False)
    except Exception as error:
        raise BadInput(str(error), code="invalid_json") from error


def pack(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """Encode a result as msgpack.

    `default` converts values that msgpack does not support; if it is None, `tag` does.
    """
    base = _base_model()
    if base is not None and isinstance(value, base):
        value = value.model_dump(mode="python")  # type: ignore[attr-defined]
    try:
        return _msgpack().packb(value, default=default or tag, use_bin_type=True)  # type: ignore[no-any-return]
    except TypeError as error:
        _locate(value, default)
        raise Unserializable(str(error)) from error
    except (ValueError, OverflowError) as error:
        _locate(value, default)
        raise Unserializable("the result cannot be written as msgpack") from error


def _locate(value: Any, default: Callable[[Any], Any] | None) -> None:
    """Raise with the path of the unsupported value. Not with a `default`, which is Truss's and has no paths."""
    if default is None:
        unwritable_results.plain(value, _MSGPACK)


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise BadInput(
            "binary requests need msgpack in the model's environment; run: pip install 'model-gateway[truss]'"
        ) from error
    return msgpack


def _untag(value: dict[Any, Any]) -> Any:
    for tag, decode in _TAGS.items():
        if tag in value and b"data" in value:
            return decode(value[b"data"])
    if b"complex" in value and b"data" in value:  # msgpack-numpy's tag, like the arrays
        return complex(value[b"data"])
    is_array = value.get(b"nd")
    if is_array is None or b"type" not in value or b"data" not in value:
        return value
    import numpy

    dtype = numpy.dtype(_dtype(value[b"type"], value.get(b"kind")))
    if value.get(b"kind") == b"O" or dtype.hasobject:
        raise ValueError("unsupported payload")
    if is_array is True:
        return numpy.ndarray(buffer=value[b"data"], dtype=dtype, shape=value[b"shape"])
    return numpy.frombuffer(value[b"data"], dtype=dtype)[0]


def _dtype(description: Any, kind: Any) -> Any:
    """Return a dtype in numpy's format; records travel as lists of fields."""
    if kind != b"V":
        return description
    return [
        (field[0], _dtype(field[1], b"V" if isinstance(field[1], list) else b""), *field[2:]) for field in description
    ]


def tag(value: Any) -> Any:
    """Convert a value that msgpack does not support: to one of Truss's tags, or to a list or dict."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        if value.dtype.hasobject:
            raise TypeError("can not serialize an object array")
        is_record = value.dtype.kind == "V"
        return {
            b"nd": True,
            b"type": value.dtype.descr if is_record else value.dtype.str,
            b"kind": b"V" if is_record else b"",
            b"shape": value.shape,
            b"data": value.tobytes(),
        }
    if numpy is not None and isinstance(value, numpy.generic):
        return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}
    if isinstance(value, complex):
        return {b"complex": True, b"data": repr(value)}
    if isinstance(value, datetime.datetime):
        return {b"__dt_datetime_iso__": True, b"data": to_json(value)}
    if isinstance(value, datetime.date):
        return {b"__dt_date_iso__": True, b"data": value.isoformat()}
    if isinstance(value, datetime.time):
        if value.tzinfo is not None:
            raise TypeError("timezone-aware times cannot be encoded")
        return {b"__dt_time_iso__": True, b"data": value.isoformat()}
    if isinstance(value, datetime.timedelta):
        return {b"__dt_timedelta__": True, b"data": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, decimal.Decimal):
        return {b"__decimal__": True, b"data": str(value)}
    if isinstance(value, uuid.UUID):
        return {b"__uuid__": True, b"data": str(value)}
    base = _base_model()
    if base is not None and isinstance(value, base):
        return value.model_dump(mode="python")  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"can not serialize {type(value).__name__!r} object")


_MSGPACK = unwritable_results.Form(
    tag,
    unwritable_results.of_msgpack,
    "can not serialize {!r} object",
    verb="written as msgpack",
    binary=True,
    any_key=True,
)
