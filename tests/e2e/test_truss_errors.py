"""What a client sees when a truss fails, and what its author sees."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

import msgpack
import pytest

from .trusses import BINARY, JSON, RAISED, Trusses

LOGGED = "/v1/models/{}:predict: predict raised "
RAISES = """
import asyncio
import fastapi
import starlette.exceptions
from gateway import HTTPError

class Boom(Exception):
    pass

class Mine(Exception):
    status_code = 418
    message = "short and stout"

class NoStatus(Exception):
    status_code = "422"
    detail = "not a number"

class Unprintable(Exception):
    def __str__(self):
        raise ValueError("no words")

def stop():
    raise StopIteration("s")

ERRORS = {
    "boom": lambda: Boom("the secret detail"),
    "not implemented": lambda: NotImplementedError(),
    "stop": lambda: StopIteration(1),
    "key": lambda: KeyError("k"),
    "timeout": lambda: asyncio.TimeoutError(),
    "cancelled": lambda: asyncio.CancelledError(),
    "exit": lambda: SystemExit(3),
    "interrupt": lambda: KeyboardInterrupt(),
    "unprintable": lambda: Unprintable(),
    "no status": lambda: NoStatus(),
    "fastapi": lambda: fastapi.HTTPException(409, "not now", headers={"Retry-After": "9", "X-Own": "yes"}),
    "object": lambda: fastapi.HTTPException(422, {"field": ["a", 1], "why": None}),
    "list": lambda: fastapi.HTTPException(422, [{"loc": ["body"]}]),
    "number": lambda: fastapi.HTTPException(422, 7),
    "zero": lambda: fastapi.HTTPException(422, 0),
    "no text": lambda: fastapi.HTTPException(422, ""),
    "nothing in it": lambda: fastapi.HTTPException(422, {}),
    "object of 500": lambda: fastapi.HTTPException(500, {"a": 1}),
    "phrase": lambda: fastapi.HTTPException(404),
    "server": lambda: fastapi.HTTPException(503, "later"),
    "starlette": lambda: starlette.exceptions.HTTPException(422, "starlette's", headers={"Retry-After": "7"}),
    "mine": lambda: Mine(),
    "ours": lambda: HTTPError(400, "temperature must be at most 2", param="temperature"),
    "html": lambda: fastapi.HTTPException(400, "<b>\\u00e4</b> \\"q\\""),
}

class Model:
    def predict(self, name):
        kind, _, name = name.partition(":")
        return getattr(self, kind)(ERRORS[name]())

    def sync(self, error):
        raise error

    async def coroutine(self, error):
        raise error

    def before(self, error):
        raise error
        yield

    async def abefore(self, error):
        raise error
        yield

    def after(self, error):
        yield "fine"
        raise error

    async def aafter(self, error):
        yield "fine"
        raise error

    def events(self, error):
        from starlette.responses import StreamingResponse

        return StreamingResponse(self.event_source(error), media_type="text/event-stream")

    async def event_source(self, error):
        yield "data: 1\\n\\n"
        raise error
"""
STEPS = """
import fastapi

class Model:
    def preprocess(self, step):
        if step == "preprocess":
            raise ValueError(step)
        return step

    async def predict(self, step):
        if step == "predict":
            raise fastapi.HTTPException(410, "gone")
        return step

    def postprocess(self, step):
        if step == "postprocess":
            raise fastapi.HTTPException(411)
        return step
"""
CHAT_ONLY = "class Model:\n    def chat_completions(self, body):\n        return 'hi'\n"
PREDICT_ONLY = "class Model:\n    def predict(self, body):\n        return 'hi'\n"
WEBSOCKET = "class Model:\n    async def websocket(self, websocket): ...\n"
UNLOADABLE = (
    "class Model:\n    def load(self):\n        raise ImportError('no weights')\n    def predict(self, x): ...\n"
)
TRACE = """
import json

class Model:
    def predict(self, text):
        try:
            return json.loads(text)
        except ValueError as error:
            raise RuntimeError("cannot read it") from error
"""
TRUSSES = {
    name: {"config.yaml": "", "model/model.py": text}
    for name, text in {
        "raises": RAISES,
        "steps": STEPS,
        "chat-only": CHAT_ONLY,
        "predict-only": PREDICT_ONLY,
        "websocket": WEBSOCKET,
        "unloadable": UNLOADABLE,
        "trace": TRACE,
    }.items()
}


def raised(truss: Trusses, kind: str, name: str, **headers: str) -> tuple[int, str | None, Any]:
    return truss.predict("raises", json.dumps(f"{kind}:{name}").encode(), **headers).error


# ── exceptions ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["boom", "not implemented", "stop", "key", "timeout", "cancelled", "unprintable", "no status"]
)
@pytest.mark.parametrize("kind", ["sync", "coroutine", "before", "abefore"])
def test_whatever_a_model_raises_is_500_and_says_nothing_of_its_insides(truss: Trusses, kind: str, name: str) -> None:
    assert raised(truss, kind, name) == (500, "600", RAISED)


def test_the_body_of_an_error_is_compact_json(truss: Trusses) -> None:
    answer = truss.predict("raises", b'"sync:boom"')
    assert answer.body == json.dumps(json.loads(answer.body), separators=(",", ":")).encode()
    assert answer.headers["content-length"] == str(len(answer.body))


def test_an_error_is_json_for_a_binary_request_too(truss: Trusses) -> None:
    assert truss.predict("raises", msgpack.packb("sync:boom"), BINARY).error == (500, "600", RAISED)


@pytest.mark.parametrize("name", ["exit", "interrupt"])
@pytest.mark.parametrize("kind", ["sync", "coroutine"])
def test_an_exit_in_predict_ends_its_call_alone(truss: Trusses, kind: str, name: str) -> None:
    assert raised(truss, kind, name) == (500, "600", RAISED)
    assert raised(truss, "sync", "fastapi")[0] == 409


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("fastapi", 409, "not now"),
        ("object", 422, {"field": ["a", 1], "why": None}),
        ("list", 422, [{"loc": ["body"]}]),
        ("number", 422, 7),
        ("zero", 422, 0),
        ("no text", 422, ""),
        ("nothing in it", 422, {}),
        ("object of 500", 500, {"a": 1}),
        ("phrase", 404, "Not Found"),
        ("server", 503, "later"),
        ("starlette", 422, "starlette's"),
        ("mine", 418, "short and stout"),
        ("ours", 400, "temperature must be at most 2"),
        ("html", 400, '<b>ä</b> "q"'),
    ],
)
@pytest.mark.parametrize("kind", ["sync", "coroutine", "before", "abefore"])
def test_an_exception_with_a_status_passes_with_its_detail(
    truss: Trusses, kind: str, name: str, status: int, message: Any
) -> None:
    assert raised(truss, kind, name) == (status, "600", message)


def test_the_headers_of_a_raised_status_pass(truss: Trusses) -> None:
    headers = truss.predict("raises", b'"sync:fastapi"').headers
    assert (headers["retry-after"], headers["x-own"]) == ("9", "yes")
    assert truss.predict("raises", b'"sync:starlette"').headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("preprocess", (500, "600", RAISED)),
        ("predict", (410, "600", "gone")),
        ("postprocess", (411, "600", "Length Required")),
    ],
)
def test_every_step_of_the_pipeline_may_fail(truss: Trusses, step: str, error: Any) -> None:
    assert truss.predict("steps", json.dumps(step).encode()).error == error
    assert truss.call("steps", "none") == "none"


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["after", "aafter"])
@pytest.mark.parametrize("name", ["boom", "fastapi"])
def test_a_failure_after_the_first_item_breaks_the_connection(truss: Trusses, kind: str, name: str) -> None:
    with truss.streaming("raises", f"{kind}:{name}") as response:
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead) as broken:
            response.read()
    assert broken.value.partial == b"fine"


@pytest.mark.parametrize("name", ["boom", "mine"])
def test_events_that_fail_say_so_and_then_break(truss: Trusses, name: str) -> None:
    words = RAISED if name == "boom" else "short and stout"
    with truss.streaming("raises", f"events:{name}") as response, pytest.raises(http.client.IncompleteRead) as broken:
        response.read()
    first, event, error = broken.value.partial.decode().rstrip().replace("\n\n", "\n").split("\n")
    assert (first, event) == ("data: 1", "event: error")
    assert words == json.loads(error.removeprefix("data: "))["error"]


@pytest.mark.parametrize("kind", ["before", "after", "abefore", "aafter"])
@pytest.mark.parametrize(("name", "status", "message"), [("boom", 500, RAISED), ("fastapi", 409, "not now")])
def test_a_stream_that_fails_while_it_is_gathered_has_a_status(
    truss: Trusses, kind: str, name: str, status: int, message: str
) -> None:
    assert raised(truss, kind, name, accept=JSON) == (status, "600", message)


# ── no such thing ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v1/models/nobody:predict", "/v1/models/nobody/loaded", "/v1/models/nobody/schema"])
def test_an_unknown_model_is_404_with_code_600(truss: Trusses, path: str) -> None:
    answer = truss.ask("POST", path, b"1") if path.endswith("predict") else truss.get(path)
    have = ", ".join(sorted(TRUSSES))
    assert answer.error == (404, "600", f"no model named 'nobody' (have: {have})")


NO_PREDICT = "`predict` must only be called if model has it."


def test_predict_on_a_model_without_it_is_404_with_code_700(truss: Trusses) -> None:
    for answer in (truss.predict("chat-only", b"1"), truss.predict("chat-only", msgpack.packb(1), BINARY)):
        assert answer.error[:2] == (404, "700")
        assert answer.error[2].startswith("the model has no `predict`, it has chat_completions")
        assert answer.error[2].endswith("; GET /v1/models lists the routes of each model")


def test_a_body_that_cannot_be_read_is_the_first_thing_to_say_of_a_missing_predict(truss: Trusses) -> None:
    words = "Invalid JSON payload: Expecting value: line 1 column 1 (char 0); the body is empty"
    assert truss.predict("chat-only", b"").error == (400, "700", words)
    assert truss.predict("chat-only", b"\xc1", BINARY).error[:2] == (400, "700")
    assert truss.predict("websocket", b"").error == (400, "700", words)


def test_predict_on_a_websocket_model_is_trusss_assertion(truss: Trusses) -> None:
    assert truss.predict("websocket", b"1").error == (500, "500", f"Unhandled exception: AssertionError: {NO_PREDICT}")


def test_an_openai_route_on_a_model_without_it_is_404_in_openais_shape(truss: Trusses) -> None:
    body = {"model": "predict-only", "messages": [{"role": "user", "content": "hi"}]}
    answer = truss.ask("POST", "/v1/chat/completions", json.dumps(body).encode())
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "route_not_supported")
    assert "x-baseten-error-code" not in answer.headers


def test_a_model_that_did_not_load_answers_503_beside_those_that_did(truss: Trusses) -> None:
    answer = truss.predict("unloadable", b"1")
    status, code, words = answer.error
    assert (status, code) == (503, "600")
    assert words.startswith("Model with name unloadable is not ready: model 'unloadable' could not be loaded; ")
    assert answer.headers["x-should-retry"] == "false"
    assert truss.reason("unloadable").startswith("ImportError: no weights")
    assert truss.call("predict-only", 1) == "hi"


@pytest.mark.parametrize("path", ["loaded", "schema"])
def test_questions_about_a_model_that_did_not_load_are_503(truss: Trusses, path: str) -> None:
    answer = truss.get(f"/v1/models/unloadable/{path}")
    status, code, words = answer.error
    assert (status, code) == (503, "600")
    assert words.startswith("Model with name unloadable is not ready: model 'unloadable' could not be loaded; ")


def test_readiness_of_a_model_that_did_not_load_is_503_with_trusss_headers(truss: Trusses) -> None:
    answer = truss.get("/v1/models/unloadable")
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "model_failed")
    assert answer.headers["x-baseten-error-source"] == "04"
    assert answer.headers["x-baseten-error-code"] == "600"


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_traceback_stands_in_the_models_log_from_its_own_file_on(truss: Trusses) -> None:
    answer = truss.predict("trace", b'"{"')
    request_id = answer.headers["x-request-id"]
    truss.gateway.wait_for(re.escape(f"[{request_id}] {LOGGED.format('trace')}"))
    truss.gateway.wait_for("RuntimeError: cannot read it")
    log = truss.gateway.log[truss.gateway.log.index(f"[{request_id}] {LOGGED.format('trace')}") :]
    frames = re.findall(r'File "([^"]+)", line \d+, in (\w+)', log.partition("RuntimeError: cannot read it")[0])
    assert frames[-1][0].endswith("trace/model/model.py")
    assert all("gateway/worker" not in file for file, _ in frames)
    assert "The above exception was the direct cause" in log


def test_a_raised_status_is_logged_as_one(truss: Trusses) -> None:
    request_id = truss.predict("raises", b'"sync:fastapi"').headers["x-request-id"]
    truss.gateway.wait_for(re.escape(f"[{request_id}] {LOGGED.format('raises')}an HTTPException"))
