"""Where the time of a request went: in its line of the access log, and in the histograms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from lines import Lines
from prometheus_client.parser import text_string_to_metric_families as parse_text
from served import Model, Served

from gateway.settings import ModelSettings

Serve = Callable[..., Served]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ROUTES = [("/models/m/predict", {}), ("/v1/chat/completions", CHAT)]
WAIT = 0.1  # seconds


async def forever(inputs: Any) -> Any:
    await asyncio.Event().wait()


def full(serve: Serve, **limits: Any) -> Served:
    """A gateway whose model has its only slot taken."""
    methods = {"predict": forever, "chat_completions": forever}
    served = serve({"m": Model(methods, limits={"slots": 1, **limits})}, access_log=True)
    served.keep_busy("m")
    return served


def sums(served: Served, name: str) -> tuple[float, float]:
    """How many values a histogram has, and their sum."""
    samples = [
        sample for family in parse_text(served.get("/metrics").body.decode()) for sample in family.samples
    ]  # of every model and route
    count, total = (sum(s.value for s in samples if s.name == f"{name}_{what}") for what in ("count", "sum"))
    return count, total


def leave(served: Served, path: str, body: Any, has_come: Callable[[], bool]) -> None:
    """A request whose client hangs up once something is so."""
    connection = served.connect()
    connection.request("POST", path, json.dumps(body).encode())
    served.wait_until(has_come)
    connection.close()


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_call_that_is_too_late_for_a_slot_has_waited_and_not_run(
    serve: Serve, lines: Lines, path: str, body: Any
) -> None:
    served = full(serve, queue_timeout=WAIT)
    assert served.post(path, body).status == 503
    (late,) = lines.events(1)
    assert late["error"] == "queue_timeout" and WAIT <= late["queue"] <= late["duration"]
    assert sums(served, "gateway_queue_duration_seconds")[1] >= WAIT
    assert sums(served, "gateway_model_duration_seconds")[0] == 0


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_client_that_leaves_the_queue_has_waited_and_not_run(
    serve: Serve, lines: Lines, path: str, body: Any
) -> None:
    served = full(serve)
    leave(served, path, body, lambda: served.hub.models["m"].limiter.queued == 1)
    (gone,) = lines.events(1)
    assert gone["status"] == 499 and 0 < gone["queue"] <= gone["duration"]
    assert sums(served, "gateway_queue_duration_seconds")[1] > 0
    assert sums(served, "gateway_model_duration_seconds")[0] == 0


def test_choices_that_never_got_a_slot_have_waited_and_not_run(serve: Serve, lines: Lines) -> None:
    served = full(serve, queue_timeout=WAIT)
    assert served.post("/v1/chat/completions", {**CHAT, "n": 2}).status == 503
    (late,) = lines.events(1)
    assert WAIT <= late["queue"] <= late["duration"]
    assert sums(served, "gateway_model_duration_seconds")[0] == 0


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_client_that_leaves_while_the_model_loads_has_waited_for_the_load(
    serve: Serve, lines: Lines, path: str, body: Any
) -> None:
    slow = Model({"predict": forever, "chat_completions": forever}, loads=[asyncio.Event()])
    served = serve({"m": slow}, tables={"m": ModelSettings(load="lazy")}, access_log=True)
    leave(served, path, body, lambda: served.hub.models["m"].queued == 1)
    (gone,) = lines.events(1)
    assert gone["status"] == 499 and gone["queue"] == 0 and 0 < gone["load"] <= gone["duration"]
    assert sums(served, "gateway_model_duration_seconds")[0] == 0
