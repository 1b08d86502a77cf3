"""What the official SDK makes of our bytes on /v1/responses, and the shortest way from a Model's values to them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import httpx2
import openai
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.dialects.base import Context
from gateway.dialects.responses.route import ResponsesDialect, ResponsesEncoder
from gateway.errors import GatewayError

HEX = "0123456789abcdef" * 2
ASK = {"model": "m", "input": "hello there"}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
RESPONSE = TypeAdapter(Response)

# The keys of the Open Responses object, every one of them required.
KEYS = frozenset(
    "id object created_at completed_at status incomplete_details model previous_response_id instructions output error "
    "tools tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs "
    "temperature reasoning user usage max_output_tokens max_tool_calls store background service_tier metadata "
    "safety_identifier prompt_cache_key".split()
)


_answer: list[httpx2.Response] = []  # the one that comes next


@functools.cache
def _client() -> openai.OpenAI:
    """Made once: a client takes longer to make than all that it does here."""
    transport = httpx2.MockTransport(lambda request: _answer.pop())
    return openai.OpenAI(
        base_url="http://test/v1", api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport)
    )


def client(body: bytes, content_type: str) -> openai.OpenAI:
    """An SDK whose next request is answered so."""
    _answer[:] = [httpx2.Response(200, headers={"content-type": content_type}, content=body)]
    return _client()


def events(stream: bytes) -> list[dict[str, Any]]:
    """The data of each event; it has its name, its number and the shape that the SDK has for it."""
    parts = stream.split(b"\n\n")
    assert parts.pop() == b"", "the stream ends within an event"
    found = []
    for number, part in enumerate(parts):
        name, data = part.split(b"\n")
        value = json.loads(data.removeprefix(b"data: "), parse_constant=lambda name: 1 / 0)
        assert name == b"event: " + value["type"].encode()
        assert value["sequence_number"] == number
        assert EVENT.validate_python(value).type == value["type"]
        found.append(value)
    return found


def accumulated(stream: bytes) -> Response:
    """A stream as the SDK's own accumulator puts it together, and the response of its last event."""
    with client(stream, "text/event-stream").responses.stream(model="m", input="x") as running:
        last: Any = list(running)[-1]
        if last.type == "response.completed":
            return running.get_final_response()
    response: Response = last.response
    return response


def parse(body: bytes) -> Response:
    """A whole answer as the SDK reads it."""
    value = json.loads(body, parse_constant=lambda name: 1 / 0)
    assert value.keys() >= KEYS
    RESPONSE.validate_python(value)
    return client(body, "application/json").responses.create(model="m", input="x")


def encoder(method: str = "chat_completions", **fields: Any) -> ResponsesEncoder:
    dialect = ResponsesDialect()
    return dialect.encoder(dialect.read({**ASK, **fields}, method), Context("m", HEX, 1795290277))


def stream_of(*batches: Sequence[Any], method: str = "chat_completions", **fields: Any) -> bytes:
    """The bytes of a stream, as a route sends them, whether it ends well or in an error."""
    under_way = encoder(method, stream=True, **fields)
    first, *rest = batches or ([],)
    out = [under_way.feed(list(first))]
    out.insert(0, under_way.start())
    try:
        for batch in rest:
            if under_way.failure is not None:
                raise under_way.failure
            out.append(under_way.feed(list(batch)))
        if under_way.failure is not None:
            raise under_way.failure
        out.append(under_way.finish())
    except GatewayError as error:
        out.append(under_way.fail(error))
    return b"".join(out)


def whole_of(items: Iterable[Any], method: str = "chat_completions", **fields: Any) -> dict[str, Any]:
    under_way = encoder(method, **fields)
    assert under_way.feed(list(items)) == b""
    body, _ = under_way.whole()
    parse(body)
    value: dict[str, Any] = json.loads(body)
    return value


def said(response: Any) -> list[Any]:
    """What the items of a response say, without their ids."""
    value = response if isinstance(response, dict) else response.to_dict(mode="json")
    found: list[Any] = []
    for item in value["output"]:
        if item["type"] == "function_call":
            found.append((item["call_id"], item["name"], item["arguments"], item["status"]))
        else:
            found.append(
                (item["type"], item.get("status"), *[tuple(sorted(_bare(part))) for part in item.get("content", ())])
            )
    return found


def _bare(part: dict[str, Any]) -> list[tuple[str, str]]:
    """SDK parts have a `parsed` of their own."""
    return [(name, json.dumps(value, sort_keys=True)) for name, value in part.items() if name != "parsed"]
