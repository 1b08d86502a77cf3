"""A gateway that holds as much as it may: 429 for the model that has most, and the others are served."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Model, Served

from gateway.errors import TooLarge
from gateway.http.routes import calls, dialects
from gateway.http.routes.calls import Bodies, weigh, weight_of
from gateway.wire.values import decode, encode

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
        served.wait_until(lambda: served.hub.catalog.models["flooded"].limiter.queued == 2)
        refused = served.post("/models/flooded/predict")
        assert refused.status == 429 and int(refused.headers["retry-after"]) >= 1
        assert served.post("/models/quiet/predict").status == 200
        response = newest.getresponse()  # it had to make room
        assert response.status == 429 and int(response.headers["retry-after"]) >= 1
        assert served.hub.catalog.models["flooded"].limiter.queued == 1
        for connection in (waiting, newest):
            connection.close()
    served.wait_until(lambda: served.hub.catalog.models["flooded"].limiter.in_flight == 0)
    assert served.post("/models/quiet/predict").status == 200


def test_bodies_that_wait_are_bounded_in_bytes(serve: Serve) -> None:
    served = serve({"m": Model({"predict": forever}, limits={"slots": 1})}, max_queued_bytes=1000)
    with served.busy("m"):
        waiting = served.connect()
        waiting.request("POST", "/models/m/predict", b"x" * 900)
        served.wait_until(lambda: served.hub.catalog.models["m"].limiter.queued == 1)
        assert served.post("/models/m/predict", b"x" * 200).status == 429
        waiting.close()
        served.wait_until(lambda: served.hub.catalog.models["m"].limiter.queued_bytes == 0)


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

    class Watched(Bodies):
        def of(self, number: int) -> bytes:
            admitted.append(served.hub.catalog.models["m"].limiter.in_flight)
            return super().of(number)

    monkeypatch.setattr(dialects, "Bodies", Watched)
    chat = {"messages": [{"role": "user", "content": "hi"}], "n": 4}
    assert served.post("/v1/chat/completions", chat).status == 200
    assert admitted == [0, 1, 2, 3]


values = st.recursive(st.integers(-(2**63), 2**64 - 1) | st.text(), st.lists, max_leaves=3)


@given(
    st.dictionaries(st.text(), values, max_size=3)
    | st.integers(0, 40).map(lambda size: dict.fromkeys(map(str, range(size)))),
    st.lists(values, min_size=1, max_size=5),
)
def test_what_calls_are_together_is_known_before_their_bodies_are_made(
    shared: dict[str, Any], prompts: list[Any]
) -> None:
    runs = [{**shared, "prompt": prompt, "seed": seed} for seed, prompt in enumerate(prompts)]
    sizes = [len(encode(run)) for run in runs]
    bodies = Bodies(runs, sum(sizes))
    assert [decode(bodies.of(number)) for number in range(len(runs))] == runs
    if len(runs) > 1:
        with pytest.raises(TooLarge):
            Bodies(runs, sum(sizes) - 1)


@given(st.dictionaries(st.text(), values | st.floats(allow_nan=False) | st.binary(), max_size=3))
def test_a_value_weighs_no_more_than_it_has_bytes(value: dict[str, Any]) -> None:
    weight = weight_of(value, 1 << 20)
    assert weight <= len(encode(value)) <= 10 * weight
    if not any(isinstance(each, bytes) for each in value.values()):
        assert weight <= len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert weight_of([value] * 3, 1 << 20) >= 3 * weight
    assert weight_of([value] * 1000, 10) <= 1011 + weight


def test_what_is_repeated_is_counted_each_time_and_what_is_not_is_never_refused() -> None:
    word = "w" * 1000
    assert weigh([{"text": [word] * 10}], 1000, 20_000) > 10_000
    with pytest.raises(TooLarge, match="becomes a call larger than 5000 bytes"):
        weigh([{"text": [word] * 10}], 1000, 5000)
    with pytest.raises(TooLarge, match="is 10 calls, together larger than 5000 bytes"):
        weigh([{"text": word}] * 10, 1000, 5000)
    assert weigh([{"text": word}], 1010, 100) == 1010
    assert weigh([{"text": [word] * 10}], 100, 1 << 20) == 100  # too short to become so large


def test_calls_that_share_no_field_have_each_its_own() -> None:
    runs: list[dict[str, Any]] = [{"a": 1, "b": [2]}, {"c": 3}, {}]
    bodies = Bodies(runs, 1000)
    assert [decode(bodies.of(number)) for number in range(3)] == runs


@pytest.mark.parametrize("n", [1, 16])
def test_what_calls_share_is_encoded_once_beside_the_loop(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    written: list[tuple[str, int]] = []

    def watched(value: Any) -> bytes:
        body = encode(value)
        written.append((threading.current_thread().name, len(body)))
        return body

    served = serve({"m": Model({"chat_completions": lambda body: "ok"}, limits={"slots": 16})})
    monkeypatch.setattr(calls, "encode", watched)
    chat = {"messages": [{"role": "user", "content": "hi"}], "n": n, "more": ["x" * 1000] * 100}
    assert served.post("/v1/chat/completions", {**chat, "seed": 5}).status == 200
    assert written and all(name.startswith(("light", "heavy")) for name, _ in written)
    assert sum(size for _, size in written) < 2 * 100_000


def test_prompts_of_different_size_are_encoded_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def watched(value: Any) -> bytes:
        body = encode(value)
        sizes.append(len(body))
        return body

    monkeypatch.setattr(calls, "encode", watched)
    prompts = ["x" * 100_000, *"abcdefgh"]
    Bodies([{"prompt": prompt, "n": 1} for prompt in prompts], 1 << 20)
    assert sum(sizes) < 2 * 100_000
