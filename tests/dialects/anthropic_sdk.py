"""What Anthropic's SDK makes of our bytes, and the shortest way from a Model's values to such bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message

from gateway.dialects.anthropic.messages import MessageEncoder, MessagesDialect
from gateway.dialects.base import Context

HEX = "0123456789abcdef" * 2
ASK: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello there"}]}
Batches = Iterable[Sequence[Any]]


def client(body: bytes, content_type: str) -> anthropic.Anthropic:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": content_type}, content=body)

    return anthropic.Anthropic(
        base_url="http://test",
        api_key="k",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )


def parse(body: bytes) -> Message:
    """A whole answer as the SDK reads it."""
    json.loads(body, parse_constant=lambda name: 1 / 0)  # strict JSON
    with client(body, "application/json") as sdk:
        return sdk.messages.create(**ASK)


def accumulate(stream: bytes) -> Message:
    """A stream as the SDK's helper puts it together."""
    with client(stream, "text/event-stream; charset=utf-8") as sdk, sdk.messages.stream(**ASK) as helper:
        return helper.get_final_message()


def events(stream: bytes) -> list[dict[str, Any]]:
    """The data of each event, whose name is its type."""
    parts = stream.split(b"\n\n")
    assert parts.pop() == b"", "the stream ends within an event"
    found = []
    for part in parts:
        name, data = part.split(b"\n")
        value = json.loads(data.removeprefix(b"data: "))
        assert name.removeprefix(b"event: ").decode() == value["type"]
        found.append(value)
    return found


def encoder(method: str = "chat_completions", **fields: Any) -> MessageEncoder:
    dialect = MessagesDialect()
    return dialect.encoder(dialect.read({**ASK, **fields}, method), Context("m", HEX, 1795290277))


def encode_stream(batches: Batches, method: str = "chat_completions", **fields: Any) -> bytes:
    """The bytes of a stream, as a route sends them: the first values are encoded before the start."""
    under_way = encoder(method, stream=True, **fields)
    out: list[bytes] = []
    for items in batches:
        chunk = under_way.feed(list(items))
        if under_way.failure is not None:
            raise under_way.failure
        out.append(chunk if out else under_way.start() + chunk)
    if not out:
        out.append(under_way.start())
    return b"".join((*out, under_way.finish()))


def encode_whole(batches: Batches, method: str = "chat_completions", **fields: Any) -> bytes:
    under_way = encoder(method, **fields)
    for items in batches:
        assert under_way.feed(list(items)) == b""
    body, _ = under_way.whole()
    return body


def both(*items: Any, method: str = "chat_completions", **fields: Any) -> Message:
    """The message that these values are, which is the same whole and streamed."""
    whole = parse(encode_whole([items], method, **fields))
    assert plain(accumulate(encode_stream([items], method, **fields))) == plain(whole)
    return whole


def plain(message: Message) -> dict[str, Any]:
    """What was said in it; the SDK's helper adds nulls of its own."""
    return message.to_dict(exclude_none=True)
