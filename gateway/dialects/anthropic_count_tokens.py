"""POST /v1/messages/count_tokens: how many tokens a message request is, by the model's own `count_tokens`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InvalidOutput
from ..hookspecs import hookimpl
from ..spec import Capabilities, Endpoint
from .anthropic_requests import COUNT_SCHEMA, continued, to_chat
from .base import Context, Dialect, Encoder, Prepared, take
from .events import encode_json, unwrap
from .outputs import error_of

# What chat makes its prompt of; a class's own `count_tokens` gets those beside the messages that it has parameters for.
PROMPT = ("messages", "tools", "tool_choice", "chat_template_kwargs", "reasoning_effort")


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(
            path="/v1/messages/count_tokens",
            method="count_tokens",
            dialect="anthropic_count_tokens",
            summary="How many tokens a message request is.",
        )
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("anthropic_count_tokens", CountDialect())


class CountDialect(Dialect):
    """The class's `count_tokens` gets what chat would get of the prompt."""

    request_schema = COUNT_SCHEMA

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        # a summary that is asked for does not change what there is to count
        inputs = {name: value for name, value in body.items() if value is not None and name != "compaction"}
        chat = to_chat(inputs)
        prompt: dict[str, Any] = {name: chat[name] for name in PROMPT if name in chat}
        return Prepared(take(inputs, "model", str), prompt)

    def runs(self, prepared: Prepared, capabilities: Capabilities) -> list[dict[str, Any]]:
        return [continued(prepared.inputs, capabilities)]

    def encoder(self, prepared: Prepared, context: Context) -> CountEncoder:
        return CountEncoder()


class CountEncoder(Encoder):
    def __init__(self) -> None:
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

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        if self._tokens is None:
            raise InvalidOutput("count_tokens gave nothing")
        return encode_json({"input_tokens": self._tokens}), []
