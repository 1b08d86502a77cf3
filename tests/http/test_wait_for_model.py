"""`wait_for_ready`: a request waits for a model that loads or restarts, leaves with its client, and is bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from served import PATIENCE, Model, Served

from gateway.dialects.anthropic import count_tokens, messages
from gateway.dialects.openai import completions, input_tokens
from gateway.dialects.responses import route as openai_responses
from gateway.dialects.scoring import rerank, tokenize
from gateway.errors import RouteNotSupported
from gateway.runners.replica import LoadError
from gateway.settings.schema import ModelSettings
from gateway.spec import Resources

Serve = Callable[..., Served]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ROUTES = [("/models/m/predict", {}), ("/v1/chat/completions", CHAT)]


def fine(inputs: Any) -> Any:
    return b'"fine"' if isinstance(inputs, bytes) else "fine"


def model(*loads: Any, wait: float = PATIENCE, max_queue: int = 4) -> Model:
    limits = {"wait_for_ready": wait, "max_queue": max_queue, "slots": 1}
    return Model({"predict": fine, "chat_completions": fine}, loads=list(loads), limits=limits)


def waiting(served: Served) -> int:
    return len(served.hub.catalog.models["m"]._early)


def send(served: Served, path: str, body: Any, **headers: str) -> Any:
    connection = served.connect()
    connection.request("POST", path, json.dumps(body).encode(), headers)
    return connection


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_request_waits_for_the_load_and_is_served(serve: Serve, path: str, body: Any) -> None:
    loaded = asyncio.Event()
    served = serve({"m": model(loaded)})
    connection = send(served, path, body)
    served.wait_until(lambda: waiting(served) == 1)
    served.do(loaded.set)
    response = connection.getresponse()
    assert response.status == 200 and b"fine" in response.read()
    timing = dict(part.strip().split(";dur=") for part in response.headers["server-timing"].split(","))
    assert float(timing["load"]) > 0
    connection.request("POST", path, json.dumps(body).encode())  # and the connection goes on
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_request_waits_for_a_restart(serve: Serve, path: str, body: Any) -> None:
    again = asyncio.Event()
    served = serve({"m": model(None, again)})
    served.do(lambda: served.models["m"].players[0].die("SIGKILL"))
    served.wait_until(lambda: served.hub.catalog.models["m"].state == "restarting")
    connection = send(served, path, body)
    served.wait_until(lambda: waiting(served) == 1)
    served.do(again.set)
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_load_that_takes_longer_than_the_wait_is_503(serve: Serve, path: str, body: Any) -> None:
    served = serve({"m": model(asyncio.Event(), wait=0.05)})
    answer = served.post(path, body)
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
    assert waiting(served) == 0


def test_the_clients_own_limit_is_shorter(serve: Serve) -> None:
    served = serve({"m": model(asyncio.Event())})
    assert served.post("/models/m/predict", {}, X_Request_Timeout="0.05").status == 503


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_load_that_fails_tells_those_who_wait(serve: Serve, path: str, body: Any) -> None:
    class Failing(asyncio.Event):
        async def wait(self) -> Any:
            await super().wait()
            raise LoadError("no weights", fatal=True)

    failing = Failing()
    served = serve({"m": model(failing)})
    connection = send(served, path, body)
    served.wait_until(lambda: waiting(served) == 1)
    served.do(failing.set)
    response = connection.getresponse()
    assert response.status == 503 and response.headers["x-should-retry"] == "false"
    connection.close()


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_who_hangs_up_leaves_at_once_and_never_reaches_the_model(serve: Serve, path: str, body: Any) -> None:
    loaded = asyncio.Event()
    served = serve({"m": model(loaded)})
    connection = send(served, path, body)
    served.wait_until(lambda: waiting(served) == 1)
    connection.close()
    served.wait_until(lambda: waiting(served) == 0)
    served.do(loaded.set)
    assert served.post(path, body).status == 200
    assert len(served.models["m"].calls) == 1


def test_no_more_wait_than_fit_the_slots_and_the_queue(serve: Serve) -> None:
    loaded = asyncio.Event()
    served = serve({"m": model(loaded, max_queue=1)})
    connections = [send(served, *route) for route in ROUTES]
    served.wait_until(lambda: waiting(served) == 2)
    answer = served.post("/v1/chat/completions", CHAT)
    assert (answer.status, answer.error["code"]) == (429, "model_overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    served.do(loaded.set)
    assert [connection.getresponse().status for connection in connections] == [200, 200]
    for connection in connections:
        connection.close()


def test_a_route_that_the_loaded_model_lacks_is_404(serve: Serve) -> None:
    loaded = asyncio.Event()
    served = serve({"m": Model({"predict": fine}, loads=[loaded], limits={"wait_for_ready": PATIENCE})})
    connection = send(served, "/v1/chat/completions", CHAT)
    served.wait_until(lambda: waiting(served) == 1)
    served.do(loaded.set)
    response = connection.getresponse()
    assert response.status == RouteNotSupported.status
    assert json.loads(response.read())["error"]["code"] == RouteNotSupported.code
    connection.close()


def test_without_the_setting_nobody_waits_for_a_model_that_loads_at_the_start(serve: Serve) -> None:
    served = serve({"m": Model({"chat_completions": fine}, loads=[asyncio.Event()])})
    answer = served.post("/v1/chat/completions", CHAT)
    assert (answer.status, answer.error["code"]) == (503, "model_loading")


# ── models that load on demand ───────────────────────────────────────────────────────────────────────────────────────

LAZY = {"m": ModelSettings(load="lazy")}
PROMPT = {"model": "m", "prompt": "hi"}
MESSAGES = {**CHAT, "max_tokens": 5}
TENSOR = {"name": "x", "datatype": "INT64", "shape": [1], "data": [1]}
INTEGER = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
METHODS = {
    "predict": lambda inputs: b'{"y": 1}',
    "chat_completions": fine,
    "completions": fine,
    "embeddings": lambda inputs: [[1.0]],
    "rerank": lambda inputs: [0.5],
    "count_tokens": lambda inputs: {"input_tokens": 1},
    "tokenize": lambda inputs: [1],
    "detokenize": lambda inputs: "hi",
    "tokenizer_info": lambda inputs: {"tokenizer_class": "T"},
}
PLUGINS = [
    completions,
    openai_responses,
    input_tokens,
    messages,
    count_tokens,
    rerank,
    tokenize,
]
DOORS = {
    "/models/m/predict": {"x": 1},
    "/v1/models/m:predict": {"x": 1},
    "/invocations": {"x": 1},
    "/v2/models/m/infer": {"inputs": [TENSOR]},
    "/v1/chat/completions": CHAT,
    "/models/m/v1/chat/completions": CHAT,
    "/v1/completions": PROMPT,
    "/v1/embeddings": {"model": "m", "input": "hi"},
    "/v1/rerank": {"model": "m", "query": "hi", "documents": ["hi"]},
    "/v1/responses": {"model": "m", "input": "hi"},
    "/v1/responses/input_tokens": {"model": "m", "input": "hi"},
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": CHAT,
    "/tokenize": PROMPT,
    "/detokenize": {"model": "m", "tokens": [1]},
    "/tokenizer_info": None,
}


def lazy(*loads: Any, **spec: Any) -> Model:
    return Model(METHODS, loads=list(loads), capabilities={"input_schema": INTEGER}, **spec)


@pytest.mark.parametrize("path", DOORS)
def test_the_first_client_of_a_lazy_model_loads_it_and_is_served(serve: Serve, path: str) -> None:
    loaded = asyncio.Event()
    served = serve({"m": lazy(loaded)}, plugins=PLUGINS, tables=LAZY)
    connection = served.connect()
    if DOORS[path] is None:
        connection.request("GET", path)
    else:
        connection.request("POST", path, json.dumps(DOORS[path]).encode())
    served.wait_until(lambda: waiting(served) == 1)
    assert served.hub.catalog.models["m"].state == "loading"
    served.do(loaded.set)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    connection.close()


def test_a_strict_lazy_model_waits_on_its_openai_routes_too(serve: Serve) -> None:
    loaded = asyncio.Event()
    served = serve({"m": lazy(loaded, parity="strict")}, tables=LAZY)
    connection = send(served, "/v1/chat/completions", CHAT)
    served.wait_until(lambda: waiting(served) == 1)
    served.do(loaded.set)
    assert connection.getresponse().status == 200
    connection.close()


def test_questions_about_a_lazy_model_neither_load_it_nor_wait(serve: Serve) -> None:
    served = serve({"m": lazy(asyncio.Event())}, tables=LAZY)
    assert served.get("/v1/models/m").status == served.get("/models/m/v1/models").status == 200
    for path in ("/v2/models/m/ready", "/v2/models/m", "/v1/models/m/loaded", "/v1/models/m/schema", "/ping"):
        assert served.get(path).status == 503, path
    assert served.hub.catalog.models["m"].state == "unloaded"


def test_a_lazy_model_is_not_ready_while_a_request_waits_for_it(serve: Serve) -> None:
    served = serve({"m": lazy(asyncio.Event())}, tables=LAZY)
    connection = send(served, "/v2/models/m/infer", DOORS["/v2/models/m/infer"])
    served.wait_until(lambda: waiting(served) == 1)
    answer = served.get("/v2/models/m/ready")
    assert (answer.status, answer.json) == (503, {"name": "m", "ready": False})
    connection.close()


def test_who_waits_longer_for_a_lazy_model_than_it_wants_is_told_that_it_loads(serve: Serve) -> None:
    served = serve({"m": lazy(asyncio.Event())}, tables=LAZY)
    for path in ("/models/m/predict", "/v1/chat/completions", "/v2/models/m/infer"):
        answer = served.post(path, DOORS[path], X_Request_Timeout="0.05")
        assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
        assert b"model 'm' is loading" in answer.body
    assert waiting(served) == 0


def test_a_lazy_model_with_wait_for_ready_0_loads_and_tells_its_client_to_come_back(serve: Serve) -> None:
    served = serve({"m": lazy(asyncio.Event(), limits={"wait_for_ready": 0.0})}, tables=LAZY)
    answer = served.post("/v1/chat/completions", CHAT)
    assert (answer.status, answer.error["code"]) == (503, "model_loading")
    assert served.hub.catalog.models["m"].state == "loading"


def test_the_first_client_of_a_lazy_model_without_a_queue_is_served(serve: Serve) -> None:
    loaded = asyncio.Event()
    served = serve({"m": lazy(loaded, limits={"max_queue": 0, "slots": 1})}, tables=LAZY)
    connection = send(served, "/v1/chat/completions", CHAT)
    served.wait_until(lambda: waiting(served) == 1)
    assert served.post("/v1/chat/completions", CHAT).status == 429
    served.do(loaded.set)
    assert connection.getresponse().status == 200
    connection.close()


def test_a_lazy_model_that_finds_no_device_tells_its_client_at_once(serve: Serve) -> None:
    served = serve({"m": lazy(asyncio.Event(), resources=Resources(gpus=1))}, tables=LAZY)
    answer = served.post("/v1/chat/completions", CHAT)
    assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")


# ── what all of them may hold ────────────────────────────────────────────────────────────────────────────────────────


def test_requests_that_wait_for_their_model_are_counted_as_waiting(serve: Serve) -> None:
    served = serve({"m": lazy(asyncio.Event())}, tables=LAZY)
    connection = send(served, "/v1/chat/completions", CHAT)
    served.wait_until(lambda: waiting(served) == 1)
    assert 'gateway_requests_queued{model="m"} 1.0' in served.get("/metrics").body.decode()
    connection.close()
    served.wait_until(lambda: waiting(served) == 0)
    assert 'gateway_requests_queued{model="m"} 0.0' in served.get("/metrics").body.decode()


def test_bodies_that_wait_for_a_load_have_no_more_room_than_those_that_wait_for_a_slot(serve: Serve) -> None:
    served = serve({"m": lazy(asyncio.Event())}, tables=LAZY, max_queued_bytes=1000)
    connection = send(served, "/models/m/predict", "x" * 700)
    served.wait_until(lambda: waiting(served) == 1)
    answer = served.post("/models/m/predict", "x" * 700)
    assert answer.status == 429 and b"1000 bytes wait already" in answer.body
    assert int(answer.headers["retry-after"]) >= 1
    connection.close()
    served.wait_until(lambda: waiting(served) == 0)
    assert (served.hub._shares.calls, served.hub._shares.bytes) == (0, 0)


def test_those_who_wait_for_a_load_make_room_for_another_model(serve: Serve) -> None:
    models = {"m": lazy(asyncio.Event()), "other": Model({"predict": fine})}
    served = serve(models, tables=LAZY, max_inflight=2)
    connections = [send(served, "/models/m/predict", number) for number in range(2)]
    served.wait_until(lambda: waiting(served) == 2)
    assert served.post("/models/other/predict").status == 200
    served.wait_until(lambda: waiting(served) == 1)
    assert served.hub._shares.calls == 1
    for connection in connections:
        connection.close()
