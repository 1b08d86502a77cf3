"""`wait_for_ready`: a request waits for a model that loads or restarts, leaves with its client, and is bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from served import PATIENCE, Model, Served

from gateway.errors import RouteNotSupported
from gateway.replica import LoadError

Serve = Callable[..., Served]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ROUTES = [("/models/m/predict", {}), ("/v1/chat/completions", CHAT)]


def fine(inputs: Any) -> Any:
    return b'"fine"' if isinstance(inputs, bytes) else "fine"


def model(*loads: Any, wait: float = PATIENCE, max_queue: int = 4) -> Model:
    limits = {"wait_for_ready": wait, "max_queue": max_queue}
    return Model({"predict": fine, "chat_completions": fine}, loads=list(loads), limits=limits)


def waiting(served: Served) -> int:
    return len(served.hub.models["m"]._early)


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
    served.wait_until(lambda: served.hub.models["m"].state == "restarting")
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


def test_no_more_wait_than_the_queue_holds(serve: Serve) -> None:
    loaded = asyncio.Event()
    served = serve({"m": model(loaded, max_queue=2)})
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


def test_without_the_setting_nobody_waits(serve: Serve) -> None:
    served = serve({"m": model(asyncio.Event(), wait=0)})
    answer = served.post("/v1/chat/completions", CHAT)
    assert (answer.status, answer.error["code"]) == (503, "model_loading")
