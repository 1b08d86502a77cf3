"""POST /v1/messages/count_tokens: count the tokens of a message request with the model's `count_tokens`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...hookspecs import hookimpl
from ...spec import Capabilities, Endpoint
from .. import answer_schemas
from ..base import Context, Dialect, Headers, Prepared
from ..counting import CountEncoder, estimated, of_prompt
from ..fields import take
from .request import COUNT_SCHEMA, continued, to_chat


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(
            path="/v1/messages/count_tokens",
            method="count_tokens",
            beside="/v1/messages",
            dialect="anthropic_count_tokens",
            summary="Token count of a message request.",
        )
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("anthropic_count_tokens", CountDialect())


class CountDialect(Dialect):
    """Passes the request to the model's `count_tokens` in the form that chat would get."""

    request_schema = COUNT_SCHEMA
    response_schema = answer_schemas.MESSAGE_TOKENS

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        # a requested summary does not change the count
        inputs = {name: value for name, value in body.items() if value is not None and name != "compaction"}
        return Prepared(take(inputs, "model", str), of_prompt(to_chat(inputs)))

    def calls(self, prepared: Prepared, capabilities: Capabilities) -> list[dict[str, Any]]:
        return [continued(prepared.inputs, capabilities)]

    def encoder(self, prepared: Prepared, context: Context) -> CountEncoder:
        return CountEncoder()

    def estimate(self, prepared: Prepared) -> tuple[bytes, Headers]:
        return estimated(prepared)
