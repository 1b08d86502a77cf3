"""What the official SDK makes of our bytes, and the shortest way from a Model's values to such bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import httpx2
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.dialects.base import Context
from gateway.dialects.openai.chat import ChatDialect, ChatEncoder

HEX = "0123456789abcdef" * 2
ASK = {"model": "m", "messages": [{"role": "user", "content": "hello there"}]}
Batch = tuple[int, Sequence[Any]]


def _client(body: bytes, content_type: str) -> openai.OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": content_type}, content=body)

    return openai.OpenAI(
        base_url="http://test/v1",
        api_key="k",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )


def parse(body: bytes) -> ChatCompletion:
    """A whole answer as the SDK reads it."""
    json.loads(body, parse_constant=lambda name: 1 / 0)  # strict JSON
    with _client(body, "application/json") as client:
        return client.chat.completions.create(model="m", messages=[])


def chunks(stream: bytes) -> list[ChatCompletionChunk]:
    with _client(stream, "text/event-stream; charset=utf-8") as client:
        return list(client.chat.completions.create(model="m", messages=[], stream=True))


def accumulate(stream: bytes) -> ChatCompletion:
    """A stream as the SDK's accumulator puts it together."""
    state: Any = ChatCompletionStreamState()
    for chunk in chunks(stream):
        state.handle_chunk(chunk)
    # get_final_completion() would refuse `length` and `content_filter`.
    return state.current_completion_snapshot  # type: ignore[no-any-return]


def encoder(*, calls: int = 1, **fields: Any) -> ChatEncoder:
    dialect = ChatDialect()
    return dialect.encoder(dialect.read({**ASK, **fields}, "chat_completions"), Context("m", HEX, 1795290277, calls))


def encode_stream(batches: Iterable[Batch], *, calls: int = 1, **fields: Any) -> bytes:
    """The bytes of a stream, as a route sends them: the first values are encoded before the role."""
    under_way = encoder(calls=calls, stream=True, **fields)
    out: list[bytes] = []
    for run, items in batches:
        chunk = under_way.feed(list(items), run)
        if under_way.failure is not None:
            raise under_way.failure
        out.append(chunk if out else under_way.start() + chunk)
    if not out:
        out.append(under_way.start())
    return b"".join((*out, under_way.finish()))


def encode_whole(batches: Iterable[Batch], *, calls: int = 1, **fields: Any) -> bytes:
    under_way = encoder(calls=calls, **fields)
    for run, items in batches:
        assert under_way.feed(list(items), run) == b""
    body, _ = under_way.whole()
    return body


def answer(*items: Any, **fields: Any) -> ChatCompletion:
    """The whole answer to `ASK` when the Model gives these values."""
    return parse(encode_whole([(0, items)], **fields))


def streamed(*items: Any, **fields: Any) -> ChatCompletion:
    return accumulate(encode_stream([(0, items)], **fields))


def events(stream: bytes) -> list[Any]:
    """The data of each event, decoded."""
    parts = stream.split(b"\n\n")
    assert parts.pop() == b"", "the stream ends within an event"
    assert all(part.startswith(b"data: ") and b"\n" not in part for part in parts)
    return [part[6:].decode() if part == b"data: [DONE]" else json.loads(part[6:]) for part in parts]
