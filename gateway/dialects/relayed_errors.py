"""Errors that a model reports itself, in a dict or in a relayed event of another server."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import GatewayError, HTTPError
from . import model_json
from .events import unwrap


def error_of(value: dict[str, Any]) -> GatewayError:
    """Return the error in a dict with `error`. A number in its `code` is a status, as other servers send it."""
    error = unwrap(value["error"])
    body = error if isinstance(error, dict) else {"message": str(error)}
    code = body.get("code")
    given = (*(source.get(key) for source in (value, body) for key in ("status", "status_code")), code)
    status = next((status for status in given if type(status) is int and 400 <= status <= 599), 500)
    message = _string(body.get("message")) or "the model reported an error"
    found = HTTPError(status, message, code=_string(code), param=_string(body.get("param")))
    if (kind := _string(body.get("type"))) not in (None, "error"):  # the latter is the type of the event
        found.type = kind
    return found


def error_in(name: str, data: bytes) -> GatewayError | None:
    """Return the error in an event, by its name, its type, or an `error` in it, or None.

    Raises:
        InvalidOutput: it would take too long to read.
    """
    if name != "error" and b'"error"' not in data:
        return None
    try:
        value = model_json.read(data)
    except (msgspec.DecodeError, RecursionError):
        return error_of({"error": data.decode("utf-8", "replace")}) if name == "error" else None
    fields = value if isinstance(value, dict) else {}
    if fields.get("error"):
        return error_of(fields)
    return error_of({"error": value}) if name == "error" or fields.get("type") == "error" else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
