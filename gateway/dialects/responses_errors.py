"""Errors of chat in the words of /v1/responses, where the fields of the two have different names."""

from __future__ import annotations

from typing import Any

from ..errors import GatewayError
from .base import public

PARAMS = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}


def described(error: GatewayError) -> dict[str, Any]:
    message = public(error)
    if error.code == "context_length_exceeded":  # OpenAI's sentence speaks of messages, or of the messages
        message = message.replace("the messages", "the input").replace("your messages", "your input")
    param = PARAMS.get(error.param or "", error.param)
    if param is not None and param.startswith("messages["):  # their places are not those of the items
        param = "input"
    return {"error": {"message": message, "type": error.type, "param": param, "code": error.code}}
