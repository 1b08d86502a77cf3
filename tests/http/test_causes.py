"""Why a request was refused or ended: the access log and the metrics name the one limit, state or key that it was."""

from __future__ import annotations

import ast
import asyncio
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lines import Lines
from served import PATIENCE, Model, Served
from test_access_log import scrape
from test_scopes import Doors

import gateway.errors
from gateway.access import keys
from gateway.access.callers import SCOPES
from gateway.errors import CAUSES, GatewayError, HTTPError, RouteNotSupported
from gateway.hosting.refusals import refusal
from gateway.http.metrics.requests import KNOWN_CODES

Serve = Callable[..., Served]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PREDICT, SHARED = "/models/m/predict", "/v1/chat/completions"
REJECTIONS = "gateway_rejections_total"
ROOT = Path(__file__).parents[2]
SOURCES = [file for place in ("gateway", "plugins") for file in (ROOT / place).rglob("*.py")]


async def forever(body: Any) -> Any:
    await asyncio.Event().wait()


async def stops(body: Any) -> Any:
    yield b"one" if isinstance(body, bytes) else "one"
    await asyncio.Event().wait()


async def chat(inputs: Any) -> Any:
    return "fine"


def lacking(body: Any) -> Any:
    raise HTTPError(404, "the model has no `predict`", code=RouteNotSupported.code)


def slow(**limits: Any) -> Model:
    return Model({"predict": forever, "chat_completions": forever}, limits={"slots": 1, **limits})


@contextmanager
def waiting(served: Served, name: str) -> Iterator[http.client.HTTPConnection]:
    """A request in the queue of the model."""
    with closing(served.connect()) as connection:
        connection.request("POST", f"/models/{name}/predict", b"{}")
        served.wait_until(lambda: served.hub.catalog.models[name].queued == 1)
        yield connection


def given(name: str) -> Iterator[tuple[str, str]]:
    """What our errors are given under this name, with the file."""
    errors = {name for name, value in vars(gateway.errors).items() if isinstance(value, type)}
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in errors:
                for word in node.keywords:
                    if word.arg == name and isinstance(word.value, ast.Constant) and word.value.value:
                        yield word.value.value, file.name


# ── which limit, which state ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_model_and_a_full_gateway_are_told_apart(serve: Serve, lines: Lines) -> None:
    models = {"m": slow(max_queue=0), "held": slow(max_queue=9), "bytes": slow(max_queue=9)}
    served = serve(models, access_log=True, max_inflight=3, max_queued_bytes=1000)
    served.keep_busy("m")
    assert served.post(PREDICT).status == 429
    served.keep_busy("bytes")
    assert served.post("/models/bytes/predict", b"x" * 2000).status == 429
    served.keep_busy("held")
    assert served.post("/models/held/predict").status == 429
    found = [(event["model"], event["error"], event["cause"]) for event in lines.events(3)]
    assert found == [
        ("m", "model_overloaded", "max_queue"),
        ("bytes", "model_overloaded", "max_queued_bytes"),
        ("held", "model_overloaded", "max_inflight"),
    ]
    assert scrape(served)[REJECTIONS] == {(cause, model, error): 1 for model, error, cause in found}


def test_a_wait_ends_by_the_models_time_or_by_the_clients(serve: Serve, lines: Lines) -> None:
    served = serve({"m": slow(queue_timeout=0.3), "other": slow(queue_timeout=30)}, access_log=True)
    served.keep_busy("m")
    served.keep_busy("other")
    assert served.post(PREDICT).status == 503
    assert served.post("/models/other/predict", X_Request_Timeout="0.1").status == 503
    found = [(event["error"], event["cause"]) for event in lines.events(2)]
    assert found == [("queue_timeout", "queue_timeout"), ("queue_timeout", "x_request_timeout")]
    assert set(scrape(served)[REJECTIONS]) == {
        ("queue_timeout", "m", "queue_timeout"),
        ("x_request_timeout", "other", "queue_timeout"),
    }


def test_a_call_that_took_too_long_names_the_limit(serve: Serve, lines: Lines) -> None:
    models = {
        "whole": slow(request_timeout=0.1),
        "first": slow(first_item_timeout=0.1),
        "gap": Model({"chat_completions": stops}, limits={"gap_timeout": 0.1}),
    }
    served = serve(models, access_log=True)
    served.post("/models/whole/predict")
    served.post("/models/whole/predict", X_Request_Timeout="0.05")
    served.post(SHARED, {**CHAT, "model": "first", "stream": True})
    served.post(SHARED, {**CHAT, "model": "gap", "stream": True})
    assert [(event["error"], event["cause"]) for event in lines.events(4)] == [
        ("timeout", "request_timeout"),
        ("timeout", "x_request_timeout"),
        ("timeout", "first_item_timeout"),
        ("timeout", "gap_timeout"),
    ]


def test_a_model_that_was_unloaded_is_not_one_that_was_lost(serve: Serve, lines: Lines) -> None:
    served = serve({"m": slow()}, access_log=True)
    served.keep_busy("m")
    with waiting(served, "m") as connection:
        ending = asyncio.run_coroutine_threadsafe(served.hub.unload(served.hub.catalog.models["m"]), served.loop)
        served.wait_until(lambda: served.hub.catalog.models["m"].state == "draining")
        assert served.post(PREDICT).status == 503
        served.do(served.hub.catalog.models["m"].stop(0, cause="unloading"))
        assert connection.getresponse().status == 503
    ending.result(PATIENCE)
    assert served.post(PREDICT).status == 503
    found = [(event["error"], event["cause"]) for event in lines.events(4)]
    assert found[0] == ("shutting_down", "unloading")
    assert found[1:3] == [("shutting_down", "unloading")] * 2  # the one that ran, and the one that waited
    assert found[3] == ("model_unavailable", "unloaded")


@pytest.mark.parametrize(
    ("state", "next_try", "cause"),
    [("unloaded", 0.0, "unloaded"), ("restarting", 1.0, "restarting"), ("failed", 1.0, "crashing")],
)
def test_each_state_in_which_a_model_is_unavailable_is_a_cause(state: Any, next_try: float, cause: str) -> None:
    error = refusal("m", state, loading_for=0.0, expected_load=None, next_try=next_try, reason="")
    assert (error.code, error.cause) == ("model_unavailable", cause)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_ends_while_a_call_runs_is_the_cause(
    serve: Serve, lines: Lines, tmp_path: Path, stream: bool
) -> None:
    model = Model({"chat_completions": stops if stream else forever})
    logged = partial(serve, access_log=True)
    doors = Doors(logged, tmp_path / "k", models={"m": model}, a={})
    with closing(doors.served.connect()) as connection:
        headers = {"x-api-key": doors.texts["a"]}
        connection.request("POST", SHARED, json.dumps({**CHAT, "stream": stream}), headers)
        assert model.begun.acquire(timeout=PATIENCE)
        if stream:
            connection.getresponse().readline()
        (tmp_path / "k").write_text("")
        doors.served.do(doors.served.keys.reload())
        (event,) = lines.events(1)
    assert (event["key"], event["error"], event["cause"]) == ("a", "invalid_api_key", "key_revoked")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [SHARED, PREDICT])
def test_a_call_whose_key_may_not_use_the_model_any_more_is_the_models_still(
    serve: Serve, lines: Lines, tmp_path: Path, path: str, stream: bool
) -> None:
    model = Model(dict.fromkeys(("chat_completions", "predict"), stops if stream else forever))
    doors = Doors(partial(serve, access_log=True), tmp_path / "k", models={"m": model}, a={}, ops={"scopes": SCOPES})
    key, ops = keys.read(tmp_path / "k")
    with closing(doors.served.connect()) as connection:
        headers = {"x-api-key": doors.texts["a"]}
        connection.request("POST", path, json.dumps({**CHAT, "stream": stream}), headers)
        assert model.begun.acquire(timeout=PATIENCE)
        if stream:
            connection.getresponse().read(1)
        keys.write(tmp_path / "k", [replace(key, models=("other",)), ops])
        for _ in range(2):  # the second look has nothing new
            doors.served.do(doors.served.keys.reload())
        (event,) = lines.events(1)
    assert (event["key"], event["model"], event["error"], event["cause"]) == (
        "a",
        "m",
        "permission_denied",
        "key_changed",
    )
    samples = scrape(doors.served, x_api_key=doors.texts["ops"])
    assert {labels[0] for labels in samples["gateway_model_duration_seconds_count"]} == {"m"}
    assert samples["gateway_requests_total"]["m", event["route"], str(event["status"])] == 1
    if path == SHARED:
        assert event["prompt_tokens"] > 0 and samples["vllm:prompt_tokens_total"]["0", "m"] == event["prompt_tokens"]


@pytest.mark.parametrize("cause", ["body_idle_timeout", "body_timeout"])
def test_a_body_that_does_not_come_in_time_names_the_limit(serve: Serve, lines: Lines, cause: str) -> None:
    served = serve({"m": Model({"chat_completions": chat})}, access_log=True, **{cause: 0.05})
    with closing(served.connect()) as connection:
        connection.request("POST", SHARED, b"{", {"content-length": "100"})
        assert connection.getresponse().status == 408
    (event,) = lines.events(1)
    assert (event["error"], event["cause"]) == ("request_timeout", cause)


# ── whatever the door ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "m", "input": "a"}),
        ("/models/m/v1/embeddings", {"input": "a"}),
        ("/models/m/predict", {}),  # the worker says so, behind what it says of the body
        ("/v2/models/m/infer", {"inputs": []}),
    ],
)
def test_a_route_that_a_model_lacks_names_it_and_counts_once_by_every_door(
    serve: Serve, lines: Lines, path: str, body: Any
) -> None:
    served = serve({"m": Model({"chat_completions": chat})}, access_log=True)
    served.models["m"].methods["predict"] = lacking
    assert served.post(path, body).status == 404
    (event,) = lines.events(1)
    assert (event["model"], event["error"]) == ("m", "route_not_supported")
    assert scrape(served)[REJECTIONS] == {("", "m", "route_not_supported"): 1}


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (SHARED, {"model": "m"}, "missing_required_parameter"),
        (SHARED, {**CHAT, "messages": 3}, "invalid_type"),
        (SHARED, {**CHAT, "n": 99}, "invalid_value"),
        ("/models/m" + SHARED, b"{no json", "invalid_json"),
        ("/models/m" + SHARED, {**CHAT, "messages": 3}, "invalid_type"),
    ],
)
def test_a_request_that_is_wrong_names_its_model_and_counts_by_its_own_code(
    serve: Serve, lines: Lines, path: str, body: Any, code: str
) -> None:
    served = serve({"m": Model({"chat_completions": chat})}, access_log=True)
    assert served.post(path, body).status == 400
    (event,) = lines.events(1)
    assert (event["model"], event["error"]) == ("m", code)
    assert scrape(served)[REJECTIONS] == {("", "m", code): 1}


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_code_of_an_error_of_ours_is_a_label_of_its_own() -> None:
    assert {one for one in given("code") if one[0] not in KNOWN_CODES} == set()
    assert "other" not in KNOWN_CODES and GatewayError.code in KNOWN_CODES


def test_every_cause_is_one_of_those_that_the_metrics_tell() -> None:
    assert {one for one in given("cause") if one[0] not in CAUSES} == set()


def test_the_page_names_every_cause() -> None:
    page = (ROOT / "docs" / "operations.md").read_text().split("| `error` | `cause` |")[1].split("\n\n")[0]
    assert {cause for cause in CAUSES if f"`{cause}`" not in page} == set()
