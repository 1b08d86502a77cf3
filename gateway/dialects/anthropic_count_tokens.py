"""POST /v1/messages/count_tokens: how many tokens a message request is, by the model's `count_tokens`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..hookspecs import hookimpl
from ..spec import Capabilities, Endpoint
from . import answer_schemas
from .anthropic_requests import COUNT_SCHEMA, continued, to_chat
from .base import Context, Dialect, Headers, Prepared, take
from .counting import CountEncoder, estimated, of_prompt


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(
            path="/v1/messages/count_tokens",
            method="count_tokens",
            beside="/v1/messages",
            dialect="anthropic_count_tokens",
            summary="How many tokens a message request is.",
        )
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("anthropic_count_tokens", CountDialect())


class CountDialect(Dialect):
    """The model's `count_tokens` gets what chat would get."""

    request_schema = COUNT_SCHEMA
    response_schema = answer_schemas.MESSAGE_TOKENS

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        # a summary that is asked for does not change what there is to count
        inputs = {name: value for name, value in body.items() if value is not None and name != "compaction"}
        return Prepared(take(inputs, "model", str), of_prompt(to_chat(inputs)))

    def runs(self, prepared: Prepared, capabilities: Capabilities) -> list[dict[str, Any]]:
        return [continued(prepared.inputs, capabilities)]

    def encoder(self, prepared: Prepared, context: Context) -> CountEncoder:
        return CountEncoder()

    def estimate(self, prepared: Prepared) -> tuple[bytes, Headers]:
        return estimated(prepared)
