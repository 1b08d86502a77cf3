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
THREAD = "thread_unsupported_request"  # clients look for it in the details, and send the whole conversation then
_WHOLE_NUMBER = re.compile(r"\d{1,18}")


def described(error: GatewayError) -> dict[str, Any]:
    """What stands under `error`, in a body and in a stream's event."""
    details = {"details": {"error_code": THREAD}} if error.code == THREAD else {}
    return {"type": error_type(error), "message": _message(error), **details}


def error_type(error: GatewayError) -> str:
    """Clients look at it beside the status, and come back after `overloaded_error`."""
    if isinstance(error, Timeout):
        return "timeout_error"
    if (isinstance(error, Unavailable) or error.status == 503) and error.should_retry is not False:
        return "overloaded_error"
    if error.status == 500 and error.type in TYPES.values():  # a relayed error in Anthropic's own words
        return error.type
    if error.status in TYPES:
        return TYPES[error.status]
    return "invalid_request_error" if error.status < 500 else "api_error"


def _message(error: GatewayError) -> str:
    """Clients know by these words that a prompt is too long and make it shorter, or that `max_tokens` is too high."""
    message = public(error)
    start = "prompt is too long"
    if error.code != "context_length_exceeded" or message.startswith(start):
        return message
    # OpenAI's sentence: "This model's maximum context length is M tokens. However, you requested N tokens (P in the
    # messages, C in the completion)", or only P where the prompt alone is too long.
    numbers = _WHOLE_NUMBER.findall(message)
    if len(numbers) < 2:
        return f"{start}: {message}"
    most, asked, *parts = map(int, numbers)
    if len(parts) < 2:
        return f"{start}: {asked} tokens > {min(most, asked - 1)} maximum"
    prompt, answer = parts[:2]
    if prompt >= most:
        return f"{start}: {prompt} tokens > {min(most, prompt - 1)} maximum"
    exceeds = f"input length and `max_tokens` exceed context limit: {prompt} + {answer} > {most}"
    return f"{exceeds}, decrease input length or `max_tokens` and try again"
