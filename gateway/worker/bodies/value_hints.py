"""Names and advice for values that cannot be sent.

Looked up by package and class name, because no framework is imported here.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import inspect
import pathlib
import uuid
from collections.abc import Iterator, Mapping, Set
from typing import Any

_BYTES = "not UTF-8 text; send base64.b64encode(value).decode()"
_LIST = "send value.tolist()"
_ARRAY = "send numpy.asarray(value)"
_PNG = 'save it to an io.BytesIO as "PNG", and send {}'
_FIGURE = "savefig it to an io.BytesIO, and send {}"
_TEXT, _RAW = "base64.b64encode(buffer.getvalue()).decode()", "buffer.getvalue()"
# package and class → display name if different, what to send as JSON, what to send in msgpack (bytes and arrays)
_KNOWN: dict[tuple[str, str], tuple[str, str, str]] = {
    ("PIL", "Image"): ("PIL.Image", _PNG.format(_TEXT), _PNG.format(_RAW)),
    ("jax", "ArrayImpl"): ("jax.Array", _LIST, _ARRAY),
    ("jaxlib", "ArrayImpl"): ("jax.Array", _LIST, _ARRAY),
    ("matplotlib", "Figure"): ("", _FIGURE.format(_TEXT), _FIGURE.format(_RAW)),
    ("numpy", "ndarray"): ("", _LIST, _LIST),
    ("numpy", "generic"): ("", "send value.item()", "send value.item()"),
    ("pandas", "DataFrame"): ("", 'send value.to_dict(orient="records")', 'send value.to_dict(orient="records")'),
    ("pandas", "Index"): ("", _LIST, "send value.to_numpy()"),
    ("pandas", "Series"): ("", _LIST, "send value.to_numpy()"),
    ("polars", "DataFrame"): ("", "send value.to_dicts()", "send value.to_dicts()"),
    ("polars", "Series"): ("", "send value.to_list()", "send value.to_numpy()"),
    ("pyarrow", "Table"): ("", "send value.to_pylist()", "send value.to_pylist()"),
    ("scipy", "sparray"): ("", "send value.toarray().tolist()", "send value.toarray()"),
    ("scipy", "spmatrix"): ("", "send value.toarray().tolist()", "send value.toarray()"),
    ("tensorflow", "Tensor"): ("", "send value.numpy().tolist()", "send value.numpy()"),
    ("torch", "Tensor"): ("", _LIST, "send value.numpy(force=True)"),
}
_AS_TEXT = (decimal.Decimal, uuid.UUID, pathlib.PurePath)
_OF_TIME = (datetime.date, datetime.time)  # a datetime is a date


def named(value: Any) -> str:
    """Return the type with its usual package: "pandas.DataFrame", "numpy.ndarray of dtype object"."""
    cls = type(value)
    for base in cls.__mro__:
        package = base.__module__.partition(".")[0]
        if (found := _KNOWN.get((package, base.__name__))) is not None:
            own = cls.__name__ if cls.__module__.partition(".")[0] == package else base.__name__
            kind = _dtype(value) if (package, base.__name__) == ("numpy", "ndarray") else ""
            return f"{found[0] or f'{package}.{own}'}{kind}"
    return cls.__name__


def _dtype(value: Any) -> str:
    return f" of dtype {value.dtype}" if hasattr(value, "dtype") else ""


def hint(value: Any, binary: bool = False) -> str:
    """Return what the author can do about a value that cannot be sent; "" if unknown."""
    for cls in type(value).__mro__:
        if (found := _KNOWN.get((cls.__module__.partition(".")[0], cls.__name__))) is not None:
            return found[1 + binary]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _BYTES
    if isinstance(value, int):
        return "more than 64 bits; send str(value)"
    if isinstance(value, str):
        return 'half of a character; send value.encode("utf-8", "replace").decode()'
    return _of_python(value)


def _of_python(value: Any) -> str:
    if inspect.isawaitable(value):
        return "await it"
    if isinstance(value, Mapping):
        return "send dict(value)"
    if isinstance(value, (Iterator, Set)):
        return "send list(value)"
    if isinstance(value, complex):
        return "send [value.real, value.imag]"
    if isinstance(value, _OF_TIME):
        is_aware = isinstance(value, datetime.time) and value.tzinfo is not None
        return "it has a time zone; send value.isoformat()" if is_aware else "send value.isoformat()"
    if isinstance(value, datetime.timedelta):
        return "send value.total_seconds()"
    if isinstance(value, enum.Enum):
        return "send value.value"
    if isinstance(value, _AS_TEXT):
        return "send str(value)"
    if inspect.isroutine(value):
        return "it is a function: call it"
    of_its_own = not isinstance(value, type) and hasattr(value, "__dict__")
    return (
        "send vars(value), or a dict of the attributes you need"
        if of_its_own
        else "convert it to a dict, a list or a str"
    )
