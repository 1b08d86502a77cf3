"""Shared parts of the routes that count the tokens of a request. The model counts them, or they are estimated."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidOutput
from .base import ESTIMATED, Encoder, Headers, Prepared
from .events import encode_json, estimate_tokens, unwrap
from .openai.chat_request import prompt_size
from .relayed_errors import error_of

# Fields that are not part of the prompt, on every route. All others go to the model, which knows what it supports.
LIMITS = frozenset({"max_tokens", "max_completion_tokens"})
BESIDE = frozenset({"model", "stream", "stream_options"}) | LIMITS


def of_prompt(chat: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a chat request that the model's `count_tokens` gets."""
    fills = chat.get("truncate_prompt_tokens") == -1  # the prompt is cut to leave room for the answer
    bounds = isinstance(chat.get("thinking"), dict)  # its budget is checked against the limit
    beside = BESIDE - LIMITS if fills or bounds else BESIDE
    return {name: value for name, value in chat.items() if name not in beside}


class CountEncoder(Encoder):
    """The answer of `count_tokens`, with further fields of the dialect."""

    def __init__(self, **beside: Any) -> None:
        self._beside = beside
        self._tokens: int | None = None

    def feed(self, items: list[Any], call: int = 0) -> bytes:
        for value in map(unwrap, items):
            if isinstance(value, dict) and value.get("error"):
                raise error_of(value)
            tokens = value.get("input_tokens") if isinstance(value, dict) else value
            if type(tokens) is not int or tokens < 0:
                raise InvalidOutput("count_tokens gave neither a whole number nor a dict with `input_tokens`")
            self._tokens = tokens
        return b""

    def whole(self) -> tuple[bytes, Headers]:
        if self._tokens is None:
            raise InvalidOutput("count_tokens gave nothing")
        return encode_json({**self._beside, "input_tokens": self._tokens}), []


def estimated(prepared: Prepared, **beside: Any) -> tuple[bytes, Headers]:
    """Return the answer for a model that cannot count, with the same estimate as in its usage."""
    tokens = max(1, estimate_tokens(prompt_size(prepared.inputs)))
    return encode_json({**beside, "input_tokens": tokens}), [ESTIMATED]
