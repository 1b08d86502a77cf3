"""X-Request-Timeout: how long a client waits, on predict and on every route of the dialects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from served import Model, Served

from gateway.dialects.openai import completions
from gateway.http.routes import dialects

Serve = Callable[..., Served]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ROUTES = [("/models/m/predict", {}), ("/v1/models/m:predict", {}), ("/v1/chat/completions", CHAT)]


async def forever(inputs: Any) -> Any:
    await asyncio.Event().wait()


async def once(inputs: Any) -> AsyncIterator[Any]:
    yield "one"
    await asyncio.Event().wait()


def quick(inputs: Any) -> Any:
    return b"{}" if isinstance(inputs, bytes) else "fine"


NO_SECONDS = ("", "0", "0.0", "-1", "+1", "1e3", "5S", "500m", "1,2", "1.", ".5", "nan", "inf", "1_0", "٣", "9" * 20)


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_anything_but_seconds_is_400_and_names_the_header(serve: Serve, path: str, body: Any) -> None:
    served = serve({"m": Model({"predict": quick, "chat_completions": quick})})
    for given in NO_SECONDS:
        answer = served.post(path, body, X_Request_Timeout=given.encode("utf-8").decode("latin-1"))
        assert answer.status == 400, given
        assert b"X-Request-Timeout" in answer.body, given
    assert served.models["m"].calls == []


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_call_that_is_quick_enough_is_answered(serve: Serve, path: str, body: Any) -> None:
    served = serve({"m": Model({"predict": quick, "chat_completions": quick})})
    for given in ("60", "60.5", "0060", "999999999"):
        assert served.post(path, body, X_Request_Timeout=given).status == 200, given


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_whole_answer_that_takes_longer_is_504(serve: Serve, path: str, body: Any) -> None:
    served = serve({"m": Model({"predict": forever, "chat_completions": forever})})
    answer = served.post(path, body, X_Request_Timeout="0.0500")
    assert answer.status == 504
    assert b"within the 0.05 s that" in answer.body  # as it was given, not what was left of it at the model
    assert served.models["m"].stopped.acquire(timeout=30)


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_call_whose_time_is_over_in_the_queue_never_reaches_the_model(serve: Serve, path: str, body: Any) -> None:
    served = serve({"m": Model({"predict": forever, "chat_completions": forever}, limits={"slots": 1})})
    with served.busy("m"):
        answer = served.post(path, body, X_Request_Timeout="0.05")
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert len(served.models["m"].calls) == 1


def test_a_stream_that_takes_longer_ends_with_an_error_in_it(serve: Serve) -> None:
    served = serve({"m": Model({"chat_completions": once})})
    answer = served.post("/v1/chat/completions", {**CHAT, "stream": True}, X_Request_Timeout="0.2")
    assert answer.status == 200
    events = [line.removeprefix(b"data: ") for line in answer.body.splitlines() if line.startswith(b"data: ")]
    assert json.loads(events[-1])["error"]["code"] == "timeout"
    assert b"one" in answer.body and b"[DONE]" not in answer.body


def test_several_choices_share_the_time(serve: Serve) -> None:
    served = serve({"m": Model({"chat_completions": forever})})
    assert served.post("/v1/chat/completions", {**CHAT, "n": 3}, X_Request_Timeout="0.05").status == 504


async def without_end(inputs: Any) -> AsyncIterator[Any]:
    while True:
        yield "and so on "


def test_a_whole_answer_that_comes_for_ever_ends_with_the_limit_of_its_model(serve: Serve) -> None:
    served = serve({"m": Model({"chat_completions": without_end}, limits={"request_timeout": 0.2})})
    answer = served.post("/v1/chat/completions", CHAT)
    assert answer.status == 504 and b"did not finish its answer within 0.2 s" in answer.body
    assert served.models["m"].stopped.acquire(timeout=30)


async def begun(inputs: Any) -> AsyncIterator[Any]:
    await asyncio.Event().wait()
    yield "never"


@pytest.mark.parametrize("method", [begun, once, forever])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("also", [{}, {"n": 2}])
def test_no_limit_for_streams_lengthens_a_whole_answer(serve: Serve, method: Any, path: str, also: Any) -> None:
    """Its method may be a generator, which says that it streams before it has made anything."""
    model = Model({"chat_completions": method, "completions": method}, limits={"slots": 2, "request_timeout": 0.2})
    served = serve({"m": model}, plugins=[completions])
    answer = served.post(path, {**CHAT, "prompt": "hi", **also})
    assert answer.status == 504 and b" within 0.2 s" in answer.body
    assert model.stopped.acquire(timeout=30)


def test_a_whole_answer_that_comes_item_by_item_is_bounded_in_bytes(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialects, "MAX_PAYLOAD", 100_000)
    served = serve({"m": Model({"chat_completions": without_end})})
    answer = served.post("/v1/chat/completions", CHAT)
    assert answer.status == 500 and b"more than 100000 bytes" in answer.body
    assert served.models["m"].stopped.acquire(timeout=30)
