"""Errors in Anthropic's words, for bodies and for the last event of a stream."""

from __future__ import annotations

import re
from typing import Any

from ..errors import GatewayError, Timeout, Unavailable
from .base import public

TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_WHOLE_NUMBER = re.compile(r"\d+")


def described(error: GatewayError) -> dict[str, Any]:
    """What stands under `error`, in a body and in a stream's event."""
    return {"type": error_type(error), "message": _message(error)}


def error_type(error: GatewayError) -> str:
    """Clients look at it beside the status, and come back after `overloaded_error`."""
    if isinstance(error, Timeout):
        return "timeout_error"
    if (isinstance(error, Unavailable) or error.status == 503) and error.should_retry is not False:
        return "overloaded_error"
    if error.status in TYPES:
        return TYPES[error.status]
    return "invalid_request_error" if error.status < 500 else "api_error"


def _message(error: GatewayError) -> str:
    """Clients know a prompt that is too long by these words, and make it shorter."""
    message = public(error)
    start = "prompt is too long"
    if error.code != "context_length_exceeded" or message.startswith(start):
        return message
    # OpenAI's sentence: "This model's maximum context length is M tokens. However, … N tokens …"
    numbers = _WHOLE_NUMBER.findall(message)
    if len(numbers) < 2:
        return f"{start}: {message}"
    return f"{start}: {numbers[1]} tokens > {numbers[0]} maximum"
