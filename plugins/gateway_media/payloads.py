"""Read a file in a request: base64, a data URL, or bytes where the format of the request has them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from gateway import BadRequest

DATA = re.compile(r"data:[^,]{0,200},")
URL = re.compile(r"[a-z]{2,10}://", re.IGNORECASE)


def file_of(value: Any, what: str) -> bytes:
    """Return the bytes of a file. `what` names its kind: "an image".

    Raises:
        BadRequest: it is none. An address is not fetched: it may lead into the gateway's own network.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _filled(bytes(value), what)
    if not isinstance(value, str):
        raise BadRequest(f"the input must be {what} as base64 or as a data URL", code="invalid_type")
    if URL.match(value):
        raise BadRequest(f"addresses are not fetched: send {what} as base64 or as a data URL", code="unsupported_value")
    text = value
    if value[:5].lower() == "data:":
        found = DATA.match("data:" + value[5:])
        if found is None or not found[0].lower().endswith(";base64,"):
            raise BadRequest("a data URL must be data:TYPE;base64,… with the content in base64")
        text = value[found.end() :]
    try:
        return _filled(base64.b64decode("".join(text.split()), validate=True), what)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"the input is not valid base64: send {what} as base64 or as a data URL") from error


def _filled(data: bytes, what: str) -> bytes:
    if not data:
        raise BadRequest(f"the input is empty: send {what}")
    return data
