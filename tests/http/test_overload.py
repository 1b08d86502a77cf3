"""A gateway that holds as much as it may: 429 for the model that has most, and the others are served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Model, Served

from gateway.errors import TooLarge
from gateway.http import serving
from gateway.http.runs import check_together
from gateway.wire import encode

Serve = Callable[..., Served]


async def forever(body: Any) -> Any:
    await asyncio.Event().wait()


def quick(body: Any) -> Any:
    return b"{}"


def test_the_flooded_model_is_refused_and_the_quiet_one_served(serve: Serve) -> None:
    models = {"flooded": Model({"predict": forever}, limits={"slots": 1}), "quiet": Model({"predict": quick})}
    served = serve(models, max_inflight=3)
    with served.busy("flooded"):
        waiting = served.connect()
        waiting.request("POST", "/models/flooded/predict", b"{}")
        newest = served.connect()
        newest.request("POST", "/models/flooded/predict", b"{}")
        served.wait_until(lambda: served.hub.models["flooded"].limiter.queued == 2)
        refused = served.post("/models/flooded/predict")
        assert refused.status == 429 and int(refused.headers["retry-after"]) >= 1
        assert served.post("/models/quiet/predict").status == 200
        response = newest.getresponse()  # it had to make room
        assert response.status == 429 and int(response.headers["retry-after"]) >= 1
        assert served.hub.models["flooded"].limiter.queued == 1
        for connection in (waiting, newest):
            connection.close()
    served.wait_until(lambda: served.hub.models["flooded"].limiter.in_flight == 0)
    assert served.post("/models/quiet/predict").status == 200


def test_bodies_that_wait_are_bounded_in_bytes(serve: Serve) -> None:
    served = serve({"m": Model({"predict": forever}, limits={"slots": 1})}, max_queued_bytes=1000)
    with served.busy("m"):
        waiting = served.connect()
        waiting.request("POST", "/models/m/predict", b"x" * 900)
        served.wait_until(lambda: served.hub.models["m"].limiter.queued == 1)
        assert served.post("/models/m/predict", b"x" * 200).status == 429
        waiting.close()
        served.wait_until(lambda: served.hub.models["m"].limiter.queued_bytes == 0)


def test_the_calls_of_one_request_are_together_bounded_in_bytes(serve: Serve) -> None:
    asked = []

    def answer(body: Any) -> str:
        asked.append(body)
        return "ok"

    served = serve({"m": Model({"chat_completions": answer}, limits={"slots": 4})}, max_queued_bytes=1000)

    def post(choices: int) -> Any:
        messages = [{"role": "user", "content": "x" * 400}]
        body = {"model": "m", "messages": messages, "n": choices}
        return served.post("/v1/chat/completions", json.dumps(body).encode())

    assert post(2).status == 200
    assert len(asked) == 2
    refused = post(3)
    assert refused.status == 413
    assert b"this request is 3 calls, together larger than 1000 bytes" in refused.body
    assert len(asked) == 2


def test_the_body_of_a_call_is_made_when_those_before_it_are_admitted(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, admitted = serve({"m": Model({"chat_completions": lambda body: "ok"}, limits={"slots": 4})}), []

    def watched(inputs: Any) -> bytes:
        admitted.append(served.hub.models["m"].limiter.in_flight)
        return encode(inputs)

    monkeypatch.setattr(serving, "encode", watched)
    chat = {"messages": [{"role": "user", "content": "hi"}], "n": 4}
    assert served.post("/v1/chat/completions", chat).status == 200
    assert admitted == [0, 1, 2, 3]


values = st.recursive(st.integers(-(2**63), 2**64 - 1) | st.text(), st.lists, max_leaves=3)


@given(st.dictionaries(st.text(), values, max_size=3), st.lists(values, min_size=2, max_size=5))
def test_what_calls_are_together_is_known_before_they_are_encoded(shared: dict[str, Any], prompts: list[Any]) -> None:
    runs = [{**shared, "prompt": prompt, "seed": seed} for seed, prompt in enumerate(prompts)]
    sizes = [len(encode(run)) for run in runs]
    check_together(runs, sizes[0], sum(sizes))
    with pytest.raises(TooLarge):
        check_together(runs, sizes[0], sum(sizes) - 1)
