"""What the routes that count the tokens of a request have in common: the number, asked of the model or estimated."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidOutput
from .base import ESTIMATED, Encoder, Headers, Prepared
from .chat_requests import prompt_size
from .events import encode_json, estimate_tokens, unwrap
from .reported import error_of

# What a request has beside its prompt on every route. All else goes to the model, which knows what it cannot honour.
LIMITS = frozenset({"max_tokens", "max_completion_tokens"})
BESIDE = frozenset({"model", "stream", "stream_options"}) | LIMITS


def of_prompt(chat: dict[str, Any]) -> dict[str, Any]:
    """What of a request in chat's words the model's `count_tokens` is asked with."""
    fills = chat.get("truncate_prompt_tokens") == -1  # the prompt is cut to what the answer leaves room for
    bounds = isinstance(chat.get("thinking"), dict)  # its budget is refused where the limit is not as small
    beside = BESIDE - LIMITS if fills or bounds else BESIDE
    return {name: value for name, value in chat.items() if name not in beside}


class CountEncoder(Encoder):
    """The answer of `count_tokens`, with what a dialect has beside the number."""

    def __init__(self, **beside: Any) -> None:
        self._beside = beside
        self._tokens: int | None = None

    def feed(self, items: list[Any], run: int = 0) -> bytes:
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
    """The same for a model that counts nothing: the estimate that its usage would have."""
    tokens = max(1, estimate_tokens(prompt_size(prepared.inputs)))
    return encode_json({**beside, "input_tokens": tokens}), [ESTIMATED]
