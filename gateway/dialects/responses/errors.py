"""Convert errors of chat for /v1/responses, where some fields have other names."""

from __future__ import annotations

from typing import Any

from ...errors import GatewayError
from ..base import client_message

PARAMS = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}


def described(error: GatewayError) -> dict[str, Any]:
    message = client_message(error)
    if error.code == "context_length_exceeded":  # OpenAI's message mentions messages
        message = message.replace("the messages", "the input").replace("your messages", "your input")
    param = PARAMS.get(error.param or "", error.param)
    if param is not None and param.startswith("messages["):  # message indices differ from item indices
        param = "input"
    return {"error": {"message": message, "type": error.type, "param": param, "code": error.code}}
