"""Errors in Anthropic's format, for bodies and for the last event of a stream."""

from __future__ import annotations

import re
from typing import Any

from ...errors import GatewayError, Timeout, Unavailable
from ..base import client_message

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
THREAD = "thread_unsupported_request"  # clients look for it in the details, and then send the whole conversation
_WHOLE_NUMBER = re.compile(r"\d{1,18}")


def described(error: GatewayError) -> dict[str, Any]:
    """Return the value of `error`, in a body and in a stream event."""
    details = {"details": {"error_code": THREAD}} if error.code == THREAD else {}
    return {"type": error_type(error), "message": _message(error), **details}


def error_type(error: GatewayError) -> str:
    """Return the error type. Clients check it besides the status, and retry after `overloaded_error`."""
    if isinstance(error, Timeout):
        return "timeout_error"
    if (isinstance(error, Unavailable) or error.status == 503) and error.should_retry is not False:
        return "overloaded_error"
    if error.status == 500 and error.type in TYPES.values():  # a relayed error with Anthropic's own type
        return error.type
    if error.status in TYPES:
        return TYPES[error.status]
    return "invalid_request_error" if error.status < 500 else "api_error"


def _message(error: GatewayError) -> str:
    """Return the message. Clients detect a prompt that is too long, or a high `max_tokens`, by its wording."""
    message = client_message(error)
    start = "prompt is too long"
    if error.code != "context_length_exceeded" or message.startswith(start):
        return message
    # OpenAI's message: "This model's maximum context length is M tokens. However, you requested N tokens (P in the
    # messages, C in the completion)", or only P if the prompt alone is too long.
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
