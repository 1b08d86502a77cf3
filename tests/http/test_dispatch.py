"""What stands around every request: plugins are told how it ended, a model's headers cannot break it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pytest
from served import PATIENCE, Model, Reply, Served

from gateway.errors import HTTPError, ModelError
from gateway.hookspecs import hookimpl
from gateway.http import errors

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PREDICT, SHARED = "/v1/models/{model}:predict", "/v1/chat/completions"
Serve = Callable[..., Served]


def observer(records: list[Mapping[str, Any]]) -> ModuleType:
    module = ModuleType("observer")
    module.call_finished = hookimpl(lambda record: records.append(record))  # type: ignore[attr-defined]
    return module


async def script(inputs: Any) -> Any:
    if isinstance(inputs, bytes):
        return await script({**json.loads(inputs), "stream": False}) and b'"fine"'
    if inputs.get("user") == "raise":
        raise ModelError("no")
    if inputs.get("user") == "wait":
        await asyncio.Event().wait()
    return broken() if inputs.get("stream") else "fine"


async def broken() -> Any:
    yield "a"
    raise HTTPError(400, "no", code="enough")


def test_plugins_are_told_how_every_call_ended(serve: Serve) -> None:
    records: list[Mapping[str, Any]] = []
    served = serve({"m": Model({"chat_completions": script, "predict": script})}, plugins=[observer(records)])
    served.post("/v1/chat/completions", CHAT, X_Request_ID="one")
    served.post("/models/m/predict", {"user": "raise"}, X_Request_ID="two")
    served.post("/v1/chat/completions", {**CHAT, "stream": True}, X_Request_ID="three")
    served.post("/v1/chat/completions", {**CHAT, "n": 99}, X_Request_ID="four")
    served.post("/models/none/predict")
    served.get("/v1/models/m")
    for path in ("/models/m/predict", "/v1/chat/completions"):
        with served.busy("m", path, {**CHAT, "user": "wait"}):
            served.wait_until(lambda: served.hub.catalog.models["m"].limiter.running == 1)
        served.wait_until(lambda: served.hub.catalog.models["m"].limiter.running == 0)
    served.wait_until(lambda: len(records) == 6)
    assert [(r["route"], r["status"], r["outcome"]) for r in records] == [
        (SHARED, 200, "ok"),
        (PREDICT, 500, "model_error"),
        (SHARED, 200, "enough"),
        (SHARED, 400, "invalid_value"),
        (PREDICT, 499, "client_left"),
        (SHARED, 499, "client_left"),
    ]
    assert [record["request_id"] for record in records[:3]] == ["one", "two", "three"]
    for record in records:
        assert set(record) == {"model", "route", "status", "queue", "duration", "request_id", "outcome"}
        assert record["model"] == "m" and 0 <= record["queue"] <= record["duration"]


def test_an_observer_that_breaks_breaks_nothing_else(serve: Serve) -> None:
    def broken_observer(record: Mapping[str, Any]) -> None:
        raise RuntimeError("the database is down")

    module = ModuleType("observer")
    module.call_finished = hookimpl(broken_observer)  # type: ignore[attr-defined]
    served = serve({"m": Model({"chat_completions": script, "predict": script})}, plugins=[module])
    for path in ("/v1/chat/completions", "/models/m/predict"):
        for _ in range(2):
            assert served.post(path, CHAT).status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/models/m/predict"])
def test_headers_of_a_models_response_cannot_break_the_answer(serve: Serve, path: str) -> None:
    headers = (
        ("X-Good", "yes"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Evil", "a\r\nx-split: 1\r\n\r\nbody"),
        ("Bad Name", "x"),
        ("Content-Length", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Content-Type", "text/plain\r\nx-split: 2"),
    )
    reply = Reply(b"by hand", status=207, headers=headers, raw=True)
    served = serve({"m": Model({"chat_completions": lambda i: reply, "predict": lambda i: reply})})
    answer = served.post(path, CHAT)
    assert (answer.status, answer.body) == (207, b"by hand")
    assert answer.headers["x-good"] == "yes" and answer.headers["content-length"] == "7"
    assert [value for name, value in answer.pairs if name.lower() == "set-cookie"] == ["a=1", "b=2"]
    assert not {"x-split", "x-evil", "bad name", "connection", "transfer-encoding"} & set(answer.headers)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/models/m/predict"])
@pytest.mark.parametrize("status", [200, 422])
def test_what_every_answer_says_of_itself_is_not_the_models_to_say(serve: Serve, path: str, status: int) -> None:
    names = ("x-request-id", "Request-Id", "X-Content-Type-Options", "server-timing")
    reply = Reply(b"by hand", status=status, headers=tuple((name, "theirs") for name in names), raw=True)
    served = serve({"m": Model({"chat_completions": lambda i: reply, "predict": lambda i: reply})})
    answer = served.post(path, CHAT)
    assert answer.status == status
    for name in names:
        (value,) = [value for given, value in answer.pairs if given.lower() == name.lower()]
        assert "theirs" not in value


OF_THE_ORIGIN = (
    *("Access-Control-Allow-Origin", "access-control-allow-credentials", "access-control-max-age", "NEL", "report-to"),
    *("Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "Service-Worker-Allowed", "accept-ch"),
    *("Origin-Agent-Cluster", "use-as-dictionary", "Sec-Session-Registration", "Secure-Session-Challenge"),
    *("Attribution-Reporting-Register-Source", "attribution-reporting-register-trigger", "Origin-Trial"),
    *("WWW-Authenticate", "Proxy-Authenticate", "Authentication-Info", "Cache-Group-Invalidation", "Set-Login"),
    *("Shared-Storage-Write", "Observe-Browsing-Topics", "Ad-Auction-Signals", "X-Accel-Redirect", "X-Sendfile"),
    *(
        "X-Sendfile2",
        "X-Sendfile-Temporary",
        "X-LiteSpeed-Location",
        "X-LIGHTTPD-send-file",
        "x-lighttpd-send-tempfile",
    ),
)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/models/m/predict"])
@pytest.mark.parametrize("status", [200, 422])
def test_what_holds_for_the_whole_origin_is_not_one_models_to_say(serve: Serve, path: str, status: int) -> None:
    headers = tuple((name, "theirs") for name in (*OF_THE_ORIGIN, "x-own", "set-cookie"))
    reply = Reply(b"by hand", status=status, headers=headers, raw=True)
    served = serve({"m": Model({"chat_completions": lambda i: reply, "predict": lambda i: reply})})
    answer = served.post(path, CHAT)
    assert answer.status == status
    assert {name.lower() for name, value in answer.pairs if value == "theirs"} == {"x-own", "set-cookie"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/models/m/predict"])
def test_an_error_of_a_model_says_nothing_for_the_whole_origin_either(serve: Serve, path: str) -> None:
    def refuse(_: Any) -> Any:
        raise HTTPError(422, "no", headers=dict.fromkeys((*OF_THE_ORIGIN, "x-own"), "theirs"))

    answer = serve({"m": Model({"chat_completions": refuse, "predict": refuse})}).post(path, CHAT)
    assert answer.status == 422
    assert {name.lower() for name, value in answer.pairs if value == "theirs"} == {"x-own"}


def test_a_connection_goes_on_after_any_answer(serve: Serve) -> None:
    served = serve({"m": Model({"chat_completions": script, "predict": script})})
    connection = served.connect()
    for _ in range(2):
        for method, path, body, status in (
            ("POST", "/models/m/predict", {}, 200),
            ("POST", "/v1/chat/completions", CHAT, 200),
            ("POST", "/v1/chat/completions", {**CHAT, "stream": True}, 200),
            ("POST", "/models/m/predict", {"user": "raise"}, 500),
            ("HEAD", "/v1/models", None, 200),
            ("GET", "/nowhere", None, 404),
            ("POST", "/models/none/predict", {"pad": "x" * 100_000}, 404),
            ("OPTIONS", "/v1/models", None, 405),
        ):
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            response.read()
            assert response.status == status, path
            assert response.getheader("connection") is None
    connection.close()


def test_the_next_request_of_a_connection_is_watched_although_the_last_ended_late(serve: Serve) -> None:
    """The end of a stream takes some turns of the loop more than its last byte."""
    served = serve({"m": Model({"chat_completions": script})})
    connection = served.connect()
    for _ in range(20):
        connection.request("POST", "/v1/chat/completions", json.dumps({**CHAT, "stream": True}))
        connection.getresponse().read()
    connection.request("POST", "/v1/chat/completions", json.dumps({**CHAT, "user": "wait"}))
    served.wait_until(lambda: served.hub.catalog.models["m"].limiter.running == 1)
    connection.close()
    served.wait_until(lambda: served.hub.catalog.models["m"].limiter.running == 0)


def test_while_draining_every_answer_says_that_the_connection_ends(serve: Serve) -> None:
    served = serve({"m": Model({"chat_completions": script, "predict": script})})
    served.do(lambda: setattr(served.hub, "draining", True))
    for method, path, body in (
        ("POST", "/models/m/predict", {}),
        ("POST", "/v1/chat/completions", CHAT),
        ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
        ("GET", "/livez", None),
        ("GET", "/v1/models", None),
    ):
        answer = served.ask(method, path, body)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
    ready = served.get("/readyz")
    assert (ready.status, ready.json["status"]) == (503, "draining")


@pytest.mark.parametrize("path", ["/models/m/predict", "/v1/chat/completions"])
def test_a_client_that_leaves_ends_its_call_however_large_the_body_was(serve: Serve, path: str) -> None:
    served = serve({"m": Model({"chat_completions": script, "predict": script})})
    for size in (10, 100_000, 250_000):
        with served.busy("m", path, {**CHAT, "user": "wait", "metadata": {"text": "x" * size}}):
            served.wait_until(lambda: served.hub.catalog.models["m"].limiter.running == 1)
        served.wait_until(lambda: served.hub.catalog.models["m"].limiter.running == 0)


def test_a_worker_that_streams_what_is_no_bytes_leaves_nobody_waiting(serve: Serve) -> None:
    async def lies(body: bytes) -> Any:
        yield b"one"
        yield ["two"]

    served = serve({"m": Model({"predict": lies})})
    connection = served.connect()
    connection.request("POST", "/models/m/predict", b"{}")
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    connection.close()
    served.wait_until(lambda: served.hub.catalog.models["m"].limiter.in_flight == 0)


@pytest.mark.parametrize("behind", [0, 5000])
def test_a_slow_client_gets_all_that_came_before_a_stream_broke_off(serve: Serve, behind: int) -> None:
    """Also when it has sent more requests than are read ahead: what is not read makes a close a reset."""
    line, written = b'{"row": "%b"}\n' % (b"x" * 8000), 0

    def waits() -> int:
        [connection] = served.server.server_state.connections
        return connection.transport.get_write_buffer_size()

    async def breaks(inputs: bytes) -> Any:
        nonlocal written
        while not waits():
            yield line
            written += 1
            for _ in range(5):
                await asyncio.sleep(0)
        raise ModelError("no")

    served = serve({"m": Model({"predict": breaks})})
    request = b"POST /models/m/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}"
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as client:
        client.sendall(request * (1 + behind))
        served.wait_until(lambda: bool(served.app._metrics._series))
        got = b""
        while part := client.recv(65536):
            got += part
    assert got.count(line) == written and not got.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("path", ["/models/m/predict", "/v1/chat/completions"])
@pytest.mark.parametrize("where", ["headers_of", "body_of"])
def test_whatever_fails_while_an_error_is_written_the_client_has_a_whole_answer(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str, where: str
) -> None:
    served = serve({"m": Model({"chat_completions": script, "predict": script})})
    write = getattr(errors, where)

    def written(error: Any, *more: Any) -> Any:
        return write(error, *more) if error.code == "internal_error" else write(None)

    monkeypatch.setattr(errors, where, written)
    for _ in range(2):  # and the next one, too
        answer = served.post(path, {**CHAT, "user": "raise"})
        assert (answer.status, b"the gateway failed on this request" in answer.body) == (500, True)


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("path", [PREDICT.format(model="m"), SHARED])
def test_what_a_request_sent_is_freed_with_its_answer_although_its_code_runs_on(
    serve: Serve, path: str, leaves: bool
) -> None:
    """The error of a call lives as long as its code, and its traceback would have the frames with the body."""
    go = asyncio.Event()

    async def stubborn(inputs: Any) -> Any:
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()
        return b"1"

    model = Model({"chat_completions": stubborn, "predict": stubborn})
    served = serve({"m": model})
    body = {**CHAT, "messages": [{"role": "user", "content": "x" * 1_000_000}]}
    if leaves:
        with served.busy("m", path, body):
            pass
    else:
        assert served.post(path, body, X_Request_Timeout="0.3").status == 504
    (call,) = model.calls
    served.wait_until(lambda: call.error is not None and call.error.__traceback__ is None)
    assert not call.ended
    served.loop.call_soon_threadsafe(go.set)
    assert model.stopped.acquire(timeout=PATIENCE)
