"""Streams of predict: each item is an HTTP chunk, those that are ready are one write, and none waits for the next."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from typing import Any

import pytest
from served import Model, Served

from gateway.http import answering, request_cycle

Serve = Callable[..., Served]


def chunks_of(served: Served) -> list[bytes]:
    """The HTTP chunks of one answer, read from the socket."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
        client.sendall(b"POST /models/m/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2\r\n\r\n{}")
        answer = client.makefile("rb")
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        http.client.parse_headers(answer)
        found = []
        while size := int(answer.readline(), 16):
            found.append(answer.read(size))
            assert answer.read(2) == b"\r\n"
        return found


def test_items_that_are_ready_together_are_written_together_and_each_is_a_chunk(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [f"{number} ".encode() for number in range(50)]
    written: list[int] = []

    def write(cycle: Any, parts: Sequence[bytes]) -> None:
        written.append(len(parts))
        request_cycle.write_chunks(cycle, parts)

    async def predict(inputs: bytes) -> AsyncIterator[bytes]:
        for item in (items[0], b"", *items[1:]):
            yield item

    monkeypatch.setattr(answering, "write_chunks", write)
    assert chunks_of(serve({"m": Model({"predict": predict})})) == items
    assert max(written) > 40


def test_items_for_a_slow_client_or_of_many_bytes_arrive_whole(serve: Serve) -> None:
    items = [bytes([number]) * 30_000 for number in range(200)]

    async def predict(inputs: bytes) -> AsyncIterator[bytes]:
        for item in items:
            yield item

    assert chunks_of(serve({"m": Model({"predict": predict})})) == items


def test_an_item_is_sent_without_waiting_for_the_next(serve: Serve) -> None:
    go_on = asyncio.Event()

    async def predict(inputs: bytes) -> AsyncIterator[bytes]:
        yield b"first"
        await go_on.wait()
        yield b"second"

    served = serve({"m": Model({"predict": predict})})
    with closing(served.connect()) as connection:
        connection.request("POST", "/models/m/predict", b"{}")
        answer = connection.getresponse()
        assert answer.read(5) == b"first"
        served.do(go_on.set)
        assert answer.read() == b"second"
