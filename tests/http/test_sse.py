"""Streams on the wire: whole events, LF only, the first item before the status, pings in silence."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from served import PATIENCE, Model, Served

from gateway.dialects.anthropic import messages
from gateway.dialects.openai import completions
from gateway.dialects.openai import speech as audio_speech
from gateway.dialects.responses import route
from gateway.errors import HTTPError, ModelError
from gateway.http import sse

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
Serve = Callable[..., Served]


def streaming(*items: Any, **options: Any) -> Model:
    async def script(inputs: Any) -> Any:
        for item in items:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, asyncio.Event):
                await item.wait()
            else:
                yield item

    return Model({"chat_completions": script}, **options)


class Wire:
    """A raw connection with a stream on it: the HTTP chunks are the gateway's writes."""

    def __init__(self, served: Served, body: Any, path: str = "/v1/chat/completions") -> None:
        data = json.dumps(body).encode()
        self.sock = socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE)
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
        self.sock.sendall(head.encode() + data)
        self.file = self.sock.makefile("rb")
        self.status = int(self.file.readline().split(b" ")[1])
        self.headers: dict[str, list[str]] = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            self.headers.setdefault(name, []).append(value)

    def chunk(self) -> bytes:
        """The next write, b"" at the end."""
        size = int(self.file.readline(), 16)
        data = self.file.read(size)
        assert self.file.read(2) == b"\r\n"
        return data

    def rest(self) -> list[bytes]:
        return list(iter(self.chunk, b""))

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@contextmanager
def wire(served: Served, **fields: Any) -> Iterator[Wire]:
    connection = Wire(served, {**CHAT, **fields})
    try:
        yield connection
    finally:
        connection.close()


def test_every_write_is_whole_events_with_lf_only(serve: Serve) -> None:
    items = [f"piece {number}\r\n" for number in range(500)]
    with wire(serve({"m": streaming(*items)})) as connection:
        writes = connection.rest()
    for write in writes:
        assert write.endswith(b"\n\n") and b"\r" not in write
        for event in write[:-2].split(b"\n\n"):
            assert event.startswith(b"data: ") and b"\n" not in event
    text = b"".join(writes)
    assert not re.search(rb"^(id|retry|event):", text, re.MULTILINE)
    pieces = [json.loads(e[6:])["choices"][0]["delta"].get("content") for e in text.split(b"\n\n")[:-2]]
    assert "".join(piece or "" for piece in pieces) == "".join(items)
    assert text.endswith(b"data: [DONE]\n\n")


def test_what_is_queued_shares_a_write(serve: Serve) -> None:
    with wire(serve({"m": streaming(*"abcdefgh")})) as connection:
        assert len(connection.rest()) < 8


def test_headers_of_a_stream(serve: Serve) -> None:
    with wire(serve({"m": streaming("a")})) as connection:
        headers = connection.headers
        assert connection.status == 200
        assert headers["content-type"] == ["text/event-stream; charset=utf-8"]
        assert headers["cache-control"] == ["no-store"]
        assert headers["x-accel-buffering"] == ["no"]
        assert headers["transfer-encoding"] == ["chunked"]
        assert headers["x-request-id"] == headers["request-id"]
        assert headers["x-content-type-options"] == ["nosniff"]
        assert not {"content-length", "connection", "content-encoding"} & set(headers)
        assert all(len(values) == 1 for values in headers.values())


@pytest.mark.parametrize("connection", [b"", b"connection: keep-alive\r\n"])
def test_a_client_of_http_1_0_gets_no_chunks_and_reads_to_the_end_of_the_connection(
    serve: Serve, connection: bytes
) -> None:
    served = serve({"m": streaming("a", "b"), "lines": Model({"predict": lines})})
    for path, body in (("/v1/chat/completions", CHAT), ("/models/lines/predict", {})):
        data = json.dumps(body).encode()
        head = b"POST %b HTTP/1.0\r\n%bcontent-length: %d\r\n\r\n" % (path.encode(), connection, len(data))
        head, _, text = served.send(head + data).partition(b"\r\n\r\n")
        assert b"connection: close" in head and b"transfer-encoding" not in head and b"content-length" not in head
        if body:
            events = [json.loads(event[6:]) for event in text.split(b"\n\n")[:-2]]
            assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "ab"
        else:
            assert text == b"one\ntwo\n"


async def lines(body: bytes) -> Any:
    yield b"one\n"
    yield b"two\n"


def test_the_status_waits_for_the_first_item(serve: Serve) -> None:
    gate = asyncio.Event()
    served = serve({"m": streaming(gate, "a")})
    begun = threading.Event()
    found: list[Wire] = []

    def connect() -> None:
        begun.set()
        found.append(Wire(served, CHAT))

    thread = threading.Thread(target=connect)
    thread.start()
    assert begun.wait(PATIENCE) and served.models["m"].begun.acquire(timeout=PATIENCE)
    assert served.do(lambda: [cycle.cycle.response_started for cycle in connections(served)]) == [False]
    served.do(gate.set)
    thread.join(PATIENCE)
    assert b'"content":"a"' in b"".join(found[0].rest())
    found[0].close()


def connections(served: Served) -> list[Any]:
    return list(served.server.server_state.connections)


def test_an_error_before_the_first_item_is_an_http_error(serve: Serve) -> None:
    answer = serve({"m": streaming(HTTPError(418, "teapot"))}).post("/v1/chat/completions", CHAT)
    assert (answer.status, answer.error["message"]) == (418, "teapot")
    assert answer.headers["content-type"] == "application/json"
    nonsense = serve({"m": streaming({"generated_text": "a"})}).post("/v1/chat/completions", CHAT)
    assert (nonsense.status, nonsense.error["code"]) == (500, "invalid_model_output")


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (ModelError("no"), "model_error"),
        ({"generated_text": "a"}, "invalid_model_output"),
        ({"error": "no"}, "model_error"),
    ],
)
def test_an_error_after_it_is_the_last_event_and_the_response_ends_well(serve: Serve, item: Any, code: str) -> None:
    gate = asyncio.Event()
    served = serve({"m": streaming("a", gate, item, "never")})
    with wire(served) as connection:
        assert b'"content":"a"' in connection.chunk()
        served.do(gate.set)
        tail = b"".join(connection.rest())
        assert json.loads(tail.removeprefix(b"data: "))["error"]["code"] == code
        assert b"[DONE]" not in tail and b'"finish_reason":"' not in tail
        served.post("/livez")


def test_a_silent_stream_is_kept_alive_by_comments(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PING_INTERVAL", 0.01)
    gate = asyncio.Event()
    served = serve({"m": streaming("a", gate, "b")})
    with wire(served) as connection:
        assert b'"content":"a"' in connection.chunk()
        assert [connection.chunk() for _ in range(3)] == [b": ping\n\n"] * 3
        served.do(gate.set)
        rest = [write for write in connection.rest() if write != b": ping\n\n"]
        assert b'"content":"b"' in b"".join(rest)


def test_a_plain_value_is_streamed_as_one_piece_and_a_stream_is_collected(serve: Serve) -> None:
    served = serve({"plain": Model({"chat_completions": lambda inputs: "whole"}), "m": streaming("a", "b")})
    with wire(served, model="plain") as connection:
        events = b"".join(connection.rest()).split(b"\n\n")
        assert [b'"content":"whole"' in event for event in events[:4]] == [False, True, False, False]
    answer = served.post("/v1/chat/completions", {**CHAT, "stream": False})
    assert answer.json["choices"][0]["message"]["content"] == "ab"
    assert answer.headers["x-gateway-usage"] == "estimated"


def test_only_the_body_decides_whether_an_answer_streams(serve: Serve) -> None:
    served = serve({"m": streaming("a")})
    for accept in ("application/json", "text/event-stream", "*/*"):
        streamed = served.post("/v1/chat/completions", CHAT, Accept=accept)
        assert streamed.headers["content-type"].startswith("text/event-stream")
        whole = served.post("/v1/chat/completions", {**CHAT, "stream": False}, Accept=accept)
        assert whole.headers["content-type"] == "application/json"


# ── SSE of the model's own ───────────────────────────────────────────────────────────────────────────────────────────


CHUNK = 'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
END = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def test_events_that_the_model_frames_pass_untouched_and_whole(serve: Serve) -> None:
    gate = asyncio.Event()
    second = 'event: x\ndata: {"b": 2}\n\n' + END
    served = serve(
        {"m": streaming(": processing\n", "\n", CHUNK[:9], CHUNK[9:] + second[:3], gate, second[3:].encode())}
    )
    with wire(served) as connection:
        assert connection.headers["content-type"] == ["text/event-stream; charset=utf-8"]
        served.do(gate.set)
        writes = connection.rest()
    assert all(write.endswith(b"\n\n") for write in writes)
    assert b"".join(writes) == (": ping\n\n" + CHUNK + second + "data: [DONE]\n\n").encode()


def test_a_failure_within_them_is_an_event_too(serve: Serve) -> None:
    gate = asyncio.Event()
    served = serve({"m": streaming(CHUNK, gate, "data: half", ModelError("no"))})
    with wire(served) as connection:
        assert connection.chunk() == CHUNK.encode()
        served.do(gate.set)
        [error] = connection.rest()
        assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "model_error"


def test_they_are_decoded_where_they_cannot_pass(serve: Serve) -> None:
    served = serve({"m": streaming(CHUNK, "data: [DONE]\n\n")})
    whole = served.post("/v1/chat/completions", {**CHAT, "stream": False})
    assert whole.json["choices"][0]["message"]["content"] == "a"
    with wire(served, n=2) as connection:
        text = b"".join(connection.rest())
    assert text.count(b"[DONE]") == 1 and text.count(b'"content":"a"') == 2


BROKEN = {
    "/v1/chat/completions": b'"invalid_model_output"',
    "/v1/completions": b'"invalid_model_output"',
    "/v1/responses": b'"response.failed"',
    "/v1/messages": b"event: error",
}
ENDED = (b"[DONE]", b"message_stop", b"response.completed", b'"finish_reason":"', b'"stop_reason":"')


@pytest.mark.parametrize("path", BROKEN)
@pytest.mark.parametrize("own", [True, False])
def test_a_relay_that_was_cut_ends_as_a_broken_stream_on_every_route(serve: Serve, path: str, own: bool) -> None:
    async def script(inputs: Any) -> Any:
        yield ": processing\n\n"
        yield CHUNK + CHUNK[:40]

    names = ("completions", "responses", "messages") if own else ()
    model = Model(dict.fromkeys(("chat_completions", *names), script), derive=("completions", "responses", "messages"))
    served = serve({"m": model}, plugins=[completions, route, messages])
    prompt = {"/v1/completions": {"prompt": "hi"}, "/v1/responses": {"input": "hi"}}.get(path, CHAT | {"max_tokens": 9})
    body = {"model": "m", "stream": True, **prompt}
    streamed = served.post(path, body)
    assert streamed.status == 200 and BROKEN[path] in streamed.body.split(b"\n\n")[-2], streamed.body
    assert not any(end in streamed.body for end in ENDED)
    whole = served.post(path, {**body, "stream": False})
    assert whole.status == 500 and "broke off" in whole.body.decode()


@pytest.mark.parametrize("path", BROKEN)
@pytest.mark.parametrize("own", [True, False])
def test_an_error_that_is_relayed_is_said_once_in_the_words_of_the_route(serve: Serve, path: str, own: bool) -> None:
    busy = '{"error": {"message": "busy", "type": "overloaded_error", "code": 529}}'
    first = 'event: message_start\ndata: {"type": "message_start", "message": {"id": "msg_1"}}\n\n'
    items = {"/v1/messages": first, "/v1/responses": 'data: {"type": "response.created", "response": {}}\n\n'}

    async def script(inputs: Any) -> Any:
        yield items[path] if own and path in items else CHUNK
        yield f"event: error\ndata: {busy}\n\n{CHUNK}{END}data: [DONE]\n\n"

    names = ("completions", "responses", "messages") if own else ()
    model = Model(dict.fromkeys(("chat_completions", *names), script), derive=("completions", "responses", "messages"))
    served = serve({"m": model}, plugins=[completions, route, messages])
    prompt = {"/v1/completions": {"prompt": "hi"}, "/v1/responses": {"input": "hi"}}.get(path, CHAT | {"max_tokens": 9})
    streamed = served.post(path, {"model": "m", "stream": True, **prompt})
    assert streamed.status == 200 and not any(end in streamed.body for end in ENDED)
    events = streamed.body.split(b"\n\n")[:-1]
    assert [b"busy" in event for event in events] == [False] * (len(events) - 1) + [True]
    shape = {"/v1/responses": b'"response.failed"', "/v1/messages": b'"overloaded_error"'}
    assert shape.get(path, b'{"error":{"message":"busy","type":"overloaded_error"') in events[-1]
    whole = served.post(path, {"model": "m", **prompt, "stream": False})
    assert whole.status == 529 and whole.json["error"]["message"] == "busy"


def test_no_client_takes_a_character_of_ours_for_the_end_of_a_line(serve: Serve) -> None:
    text = "one\u2028two\u2029three\u0085four\x0b\x0c\x1c"
    with wire(serve({"m": streaming(text, text)})) as connection:
        stream = b"".join(connection.rest()).decode()
    lines = [line for line in stream.splitlines() if line]
    assert all(line.startswith("data: ") for line in lines)
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == text * 2


# ── clients that leave, or read slowly ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n", [1, 3])
def test_a_client_that_leaves_ends_every_run_of_its_call(serve: Serve, n: int) -> None:
    served = serve({"m": streaming("a", asyncio.Event())})
    with wire(served, n=n) as connection:
        connection.chunk()
    for _ in range(n):
        assert served.models["m"].stopped.acquire(timeout=PATIENCE)
    served.wait_until(lambda: served.hub.catalog.models["m"].limiter.running == 0)


def test_when_one_of_n_runs_fails_the_others_are_ended(serve: Serve) -> None:
    async def script(inputs: Any) -> Any:
        yield "a"
        if inputs["seed"] == 11:
            raise ModelError("no")
        await asyncio.Event().wait()

    served = serve({"m": Model({"chat_completions": script})})
    with wire(served, n=3, seed=10) as connection:
        assert b'"model_error"' in b"".join(connection.rest())
    for _ in range(3):
        assert served.models["m"].stopped.acquire(timeout=PATIENCE)
    served.wait_until(lambda: served.hub.catalog.models["m"].limiter.running == 0)


@pytest.mark.parametrize("n", [1, 2])
def test_a_client_that_does_not_read_holds_its_model_back(serve: Serve, n: int) -> None:
    """Credit is granted for what was taken: the worker's window then stops the model, see the worker's tests."""
    served = serve({"m": streaming(*["x" * 10_000] * 3000)})
    with wire(served, n=n) as connection:
        connection.chunk()
        served.wait_until(lambda: all(protocol.flow.write_paused for protocol in connections(served)))
        granted = sum(items for player in served.models["m"].players for items, _ in player.granted)
        assert granted < 3000 * n
        connection.rest()


def test_every_stream_tells_proxies_to_pass_it_on_as_it_comes(serve: Serve) -> None:
    async def pieces(inputs: Any) -> Any:
        yield b"a" if isinstance(inputs, bytes) else "a"

    async def sound(inputs: Any) -> Any:
        yield b"RIFF"

    served = serve(
        {"m": Model({"chat_completions": pieces, "predict": pieces, "speech": sound})}, plugins=[audio_speech]
    )
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    speech = {"model": "m", "input": "hi", "voice": "a", "response_format": "wav"}
    for path, body in (("/v1/chat/completions", chat), ("/models/m/predict", {}), ("/v1/audio/speech", speech)):
        answer = served.post(path, body)
        assert (answer.status, answer.headers["x-accel-buffering"]) == (200, "no"), path
    assert "x-accel-buffering" not in served.post("/v1/chat/completions", {**chat, "stream": False}).headers
