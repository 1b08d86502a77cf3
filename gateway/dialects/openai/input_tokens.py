"""POST /v1/responses/input_tokens: count the tokens of a request for a response, as OpenAI's SDK does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...hookspecs import hookimpl
from ...spec import Endpoint
from .. import answer_schemas
from ..base import Context, Dialect, Headers, Prepared
from ..counting import CountEncoder, estimated, of_prompt
from ..fields import missing, take
from ..responses.request import COUNT_SCHEMA, check, to_chat
from ..responses.tools import read_tools

OBJECT = "response.input_tokens"


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(
            path="/v1/responses/input_tokens",
            method="count_tokens",
            beside="/v1/responses",
            dialect="openai_input_tokens",
            summary="Token count of a request for a response.",
        )
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("openai_input_tokens", InputTokensDialect())


class InputTokensDialect(Dialect):
    """Passes the request to the model's `count_tokens` in the form that chat would get."""

    request_schema = COUNT_SCHEMA
    response_schema = answer_schemas.INPUT_TOKENS
    keeps = True  # a request may continue a stored response; this answer is not stored

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        if "input" not in inputs and not take(inputs, "instructions", str):
            raise missing("input")
        check({"input": "", **inputs})
        tools = read_tools(inputs)
        chat = to_chat({"input": [], **inputs}, tools)
        return Prepared(take(inputs, "model", str), of_prompt(chat), left_out=tools.left_out)

    def encoder(self, prepared: Prepared, context: Context) -> CountEncoder:
        return CountEncoder(object=OBJECT)

    def estimate(self, prepared: Prepared) -> tuple[bytes, Headers]:
        return estimated(prepared, object=OBJECT)
