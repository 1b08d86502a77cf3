"""When a model was called last, as operators are told: by calls too that it never took."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from served import Model, Served

from gateway.runners.replica import LoadError
from gateway.settings.schema import ModelSettings

Serve = Callable[..., Served]
KEY = {"x_api_key": "k" * 20}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ROUTES = [("/models/m/predict", {}), ("/v1/chat/completions", CHAT), ("/v2/models/m/infer", {"inputs": []})]
TOGETHER = {**CHAT, "n": 2}


async def forever(inputs: Any) -> Any:
    await asyncio.Event().wait()


def gateway(serve: Serve, load: str = "eager", **model: Any) -> Served:
    served = serve(
        {"m": Model({"predict": forever, "chat_completions": forever}, **model)},
        tables={"m": ModelSettings(load=load)},
        api_key=KEY["x_api_key"],
        admin_http=True,
    )
    assert last(served) is None
    return served


def last(served: Served) -> float | None:
    (found,) = served.get("/admin/models", **KEY).json["models"]
    at: float | None = found["last_call_at"]
    return at


def is_now(at: float | None) -> bool:
    return at is not None and abs(time.time() - at) < 60


@pytest.mark.parametrize(("path", "body"), ROUTES)
@pytest.mark.parametrize("load", [asyncio.Event(), LoadError("no weights", fatal=True)])
def test_a_call_of_a_model_that_loads_or_has_failed_was_one(serve: Serve, path: str, body: Any, load: Any) -> None:
    served = gateway(serve, loads=[load])
    assert served.post(path, body, **KEY).status == 503
    assert is_now(last(served))


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_call_of_a_model_that_was_unloaded_was_one(serve: Serve, path: str, body: Any) -> None:
    served = gateway(serve)
    served.do(served.hub.unload(served.hub.catalog.models["m"]))
    assert served.post(path, body, **KEY).status == 503
    assert is_now(last(served))


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_client_that_left_while_the_model_loaded_has_called_it(serve: Serve, path: str, body: Any) -> None:
    served = gateway(serve, "lazy", loads=[asyncio.Event()])
    with closing(served.connect()) as connection:
        connection.request("POST", path, json.dumps(body), {"x-api-key": KEY["x_api_key"]})
        served.wait_until(lambda: served.hub.catalog.models["m"].queued == 1)
    served.wait_until(lambda: served.hub.catalog.models["m"].queued == 0)
    assert is_now(last(served))


def test_a_call_that_was_too_late_and_calls_that_have_no_room_were_some(serve: Serve) -> None:
    served = gateway(serve, limits={"slots": 1, "max_queue": 1})
    assert served.post("/models/m/predict", {}, X_Request_Timeout="0.000001", **KEY).status == 503
    assert is_now(last(served))


def test_choices_that_have_no_room_were_calls(serve: Serve) -> None:
    served = gateway(serve, limits={"slots": 1, "max_queue": 1})
    served.do(lambda: setattr(served.hub.catalog.models["m"].limiter, "max_queue", 0))
    assert served.post("/v1/chat/completions", TOGETHER, **KEY).status == 429
    assert is_now(last(served))


@pytest.mark.parametrize("path", ["/v1/models/m", "/v2/models/m/ready", "/models/m/ping"])
def test_a_question_is_no_call(serve: Serve, path: str) -> None:
    served = gateway(serve, loads=[asyncio.Event()])
    assert served.get(path, **KEY).status == 503
    assert last(served) is None
