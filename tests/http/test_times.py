"""Where the time of a request went: in its line of the access log, and in the histograms."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from lines import Lines
from prometheus_client.parser import text_string_to_metric_families as parse_text
from served import PATIENCE, Model, Served

from gateway.settings.schema import ModelSettings

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


def samples_of(served: Served, name: str, **labels: str) -> list[float]:
    """The values of a counter with such labels that are not 0."""
    families = parse_text(served.get("/metrics").body.decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return [sample.value for sample in samples if labels.items() <= sample.labels.items() and sample.value]


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
    leave(served, path, body, lambda: served.hub.catalog.models["m"].limiter.queued == 1)
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
    leave(served, path, body, lambda: served.hub.catalog.models["m"].queued == 1)
    (gone,) = lines.events(1)
    assert gone["status"] == 499 and gone["queue"] == 0 and 0 < gone["load"] <= gone["duration"]
    assert sums(served, "gateway_model_duration_seconds")[0] == 0


def test_a_client_that_leaves_an_order_behind_has_left_though_it_was_carried_out(serve: Serve, lines: Lines) -> None:
    load = asyncio.Event()
    served = serve({"m": Model({"predict": forever}, loads=[load])}, access_log=True)
    with closing(served.connect()) as connection:
        connection.request("POST", "/v2/repository/models/m/load", b"")
        served.wait_until(lambda: any(one.cycle is not None for one in served.server.server_state.connections))
    served.wait_until(lambda: not served.server.server_state.connections)
    served.do(load.set)
    (event,) = lines.events(1)
    assert (event["status"], event["client_gone"], event["asked"]) == (499, True, "m")
    assert served.hub.catalog.models["m"].state == "ready"
    assert samples_of(served, "gateway_cancellations_total") == []


def test_an_upload_that_takes_its_time_is_the_clients_time(serve: Serve, lines: Lines) -> None:
    served = serve({"m": Model({"predict": lambda body: b"{}"})}, access_log=True)
    head = b"POST /models/m/predict HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as client:
        client.sendall(head)
        served.wait_until(lambda: any(one.cycle is not None for one in served.server.server_state.connections))
        time.sleep(WAIT)  # what the upload takes is what is measured
        client.sendall(b"{}")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    (event,) = lines.events(1)
    assert WAIT <= event["body"] <= event["duration"] - event["run"]
    seconds = samples_of(served, "gateway_client_seconds_total", part="body")
    assert seconds == [pytest.approx(event["body"], abs=1e-5)]


def hooked(limits: dict[str, Any]) -> tuple[Model, threading.Event]:
    """A model whose calls are in `preprocess` until the event is set, and get their slot then."""
    go = threading.Event()

    async def predict(inputs: Any) -> bytes:
        call = model.calls[-1]
        await asyncio.to_thread(go.wait, PATIENCE)
        call.on_slot()
        return b"{}"

    model = Model({"predict": predict}, capabilities={"has_hooks": True}, limits=limits)
    return model, go


def test_preprocess_is_no_queue(serve: Serve, lines: Lines) -> None:
    model, go = hooked({"slots": 1})
    served = serve({"m": model}, access_log=True)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(served.post, "/models/m/predict", {})
        assert model.begun.acquire(timeout=PATIENCE)
        assert samples_of(served, "gateway_requests_in_flight") == [1]
        assert samples_of(served, "gateway_requests_queued") == []
        time.sleep(WAIT)  # what preprocess takes is what is measured
        go.set()
        assert answer.result().status == 200
    (event,) = lines.events(1)
    assert event["queue"] == 0 and WAIT <= event["run"] <= event["duration"]
    assert sums(served, "gateway_queue_duration_seconds") == (1, 0)
    assert sums(served, "gateway_model_duration_seconds")[1] >= WAIT
    told = dict(part.split(";dur=") for part in answer.result().headers["server-timing"].split(", "))
    assert (told["queue"], told["load"]) == ("0.0", "0.0") and float(told["model"]) >= WAIT * 1000


def test_a_time_limit_that_ends_a_preprocess_is_the_models(serve: Serve, lines: Lines) -> None:
    model, go = hooked({"slots": 1, "request_timeout": 0.2})
    served = serve({"m": model}, access_log=True)
    assert served.post("/models/m/predict", {}).status == 504
    go.set()
    (event,) = lines.events(1)
    assert event["queue"] == 0 and event["run"] >= 0.2
    assert samples_of(served, "gateway_rejections_total") == []


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_a_call_that_gets_a_slot_at_once_has_waited_for_none(serve: Serve, lines: Lines, path: str, body: Any) -> None:
    served = serve({"m": Model({"predict": lambda body: b"{}", "chat_completions": lambda body: "x"})}, access_log=True)
    assert served.post(path, body).status == 200
    (event,) = lines.events(1)
    assert event["queue"] == 0 < event["run"]


async def large(inputs: Any) -> Any:
    return pieces(b"x" if isinstance(inputs, bytes) else "x")


async def pieces(letter: Any) -> Any:
    for _ in range(100):
        yield letter * 100_000


SLOW = {"/models/m/predict": {}, "/v1/chat/completions": {**CHAT, "stream": True}}


def asked(served: Served, path: str) -> socket.socket:
    """A client that has a stream coming, and takes nothing of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(PATIENCE)
    client.connect(("127.0.0.1", served.port))
    body = json.dumps(SLOW[path]).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


@pytest.mark.parametrize("path", SLOW)
def test_a_stream_that_is_taken_slowly_takes_the_clients_time_and_not_the_models(
    serve: Serve, lines: Lines, path: str
) -> None:
    served = serve({"m": Model({"predict": large, "chat_completions": large})}, access_log=True)
    with asked(served, path) as client:
        served.wait_until(lambda: any(one.flow.write_paused for one in served.server.server_state.connections))
        time.sleep(WAIT)  # what the client does not take is what is measured
        while client.recv(1 << 20):
            pass
    (event,) = lines.events(1)
    assert event["send"] >= WAIT and event["error"] is None and event["client_gone"] is False
    parts = sum(event[part] for part in ("queue", "load", "run", "body", "send"))
    assert parts <= event["duration"] + 1e-4
    assert sums(served, "gateway_model_duration_seconds")[1] == pytest.approx(event["run"], abs=1e-3)
    assert samples_of(served, "gateway_client_seconds_total", part="send") == [pytest.approx(event["send"], abs=1e-5)]


@pytest.mark.parametrize("path", SLOW)
def test_a_client_that_was_cut_off_did_not_leave_by_itself(serve: Serve, lines: Lines, path: str) -> None:
    models = {"m": Model({"predict": large, "chat_completions": large})}
    served = serve(models, access_log=True, send_timeout=0.2)
    with asked(served, path):
        (event,) = lines.events(1)
    assert (event["status"], event["error"], event["client_gone"]) == (499, "send_timeout", False)
    assert samples_of(served, "gateway_cancellations_total", reason="send_timeout") == [1]
