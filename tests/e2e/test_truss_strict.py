"""`truss_parity = "strict"`: what the improvements change of an answer is Truss's again, byte for byte.

The answers that are expected here are those of Truss 0.18.36's own server.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any

import msgpack
import pytest

from .trusses import BINARY, JSON, Trusses

GENERIC = "Internal Server Error (in model/chainlet)."
MAIN = """
import dataclasses, datetime, decimal, uuid
import fastapi
import numpy as np
import starlette.exceptions
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, StreamingResponse
from gateway import HTTPError

class Boom(Exception):
    pass

class BM(BaseModel):
    a: int

@dataclasses.dataclass
class Point:
    x: int

async def lazily():
    return 1

ERRORS = {
    "boom": lambda: Boom("mid"),
    "fastapi": lambda: fastapi.HTTPException(409, "not now", headers={"Retry-After": "9"}),
    "object": lambda: fastapi.HTTPException(500, {"field": ["a", 1]}),
    "number": lambda: fastapi.HTTPException(422, 7),
    "empty": lambda: fastapi.HTTPException(422, ""),
    "starlette": lambda: starlette.exceptions.HTTPException(422, "starlette's"),
    "ours": lambda: HTTPError(400, "ours"),
    "exit": lambda: SystemExit(3),
}
ITEMS = {
    "int": 1,
    "dict": {"a": 1},
    "none": None,
    "bytearray": bytearray(b"x"),
    "array": np.arange(3),
    "view": memoryview(b"v"),
}
VALUES = {
    "bytes": lambda: b"raw",
    "set": lambda: {5},
    "datetime": lambda: datetime.datetime(2026, 1, 2),
    "decimal": lambda: decimal.Decimal("1.50"),
    "uuid": lambda: uuid.UUID(int=7),
    "models": lambda: [BM(a=1)],
    "dataclass": lambda: Point(1),
    "iterator": lambda: iter([1]),
    "coroutine": lambda: lazily(),
    "model": lambda: BM(a=1),
    "array": lambda: [np.arange(2)],
    "nan": lambda: float("nan"),
}

class Model:
    def predict(self, name):
        kind, _, rest = name.partition(":")
        return getattr(self, kind)(rest)

    def value(self, name):
        return VALUES[name]()

    def sync(self, name):
        raise ERRORS[name]()

    def before(self, name):
        raise ERRORS[name]()
        yield

    def after(self, name):
        yield "fine"
        raise ERRORS[name]()

    async def abefore(self, name):
        raise ERRORS[name]()
        yield

    async def aafter(self, name):
        yield "fine"
        raise ERRORS[name]()

    def items(self, name):
        yield "fine"
        yield ITEMS[name]
        yield "more"

    def first(self, name):
        yield ITEMS[name]

    def events(self, name):
        async def source():
            if name == "later":
                yield "data: 1\\n\\n"
            raise Boom("mid")
            yield

        return StreamingResponse(source(), media_type="text/event-stream")

    def refused(self, name):
        return PlainTextResponse("mine", status_code=422)

    def fine(self, name):
        yield "data: 1\\n\\n"
        yield b"data: 2\\n\\n"

    def chat_completions(self, body):
        return self.predict(body["name"]) if "name" in body else [type(body).__name__, body]

    async def completions(self, body):
        return {"completions": body}

    async def messages(self, body):
        return {"messages": body}

    async def responses(self, body):
        return {"responses": body}
"""
TYPED = """
from pydantic import BaseModel
from starlette.requests import Request

class In(BaseModel):
    a: int

class Other(BaseModel):
    b: int

class Model:
    def predict(self, x: In) -> In:
        return x

    def chat_completions(self, x: Other, request: Request):
        return [type(x).__name__, request.headers["x-mine"]]

    def embeddings(self):
        return "called"
"""
REQUEST_ONLY = """
from starlette.requests import Request

class Model:
    async def predict(self, request: Request):
        return (await request.body()).decode("latin-1")

    def chat_completions(self, x):
        return [x]
"""
LEAVING = """
import asyncio, pathlib
from starlette.requests import Request

class Model:
    async def predict(self, name, request: Request):
        yield "x"
        told = "was ended"
        try:
            while not await request.is_disconnected():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            told = "stopped by itself"
        finally:
            place = pathlib.Path("../../shared") / name
            place.with_suffix(".part").write_text(told)
            place.with_suffix(".part").rename(place)

    async def chat_completions(self, body, request: Request):
        async for item in self.predict(body["name"], request):
            yield item
"""
POST_STREAM = """
class Model:
    def predict(self, x):
        return x

    def postprocess(self, x):
        yield "fine"
        raise ValueError("x")
"""
UNTYPED = "class Model:\n    def predict(self, x, request):\n        return x\n"
STRINGS = """
from __future__ import annotations
from starlette.requests import Request

class Model:
    def predict(self, x, request: Request):
        return x
"""
CHAT_ONLY = "class Model:\n    def chat_completions(self, body):\n        return {'mine': body}\n"
IMPROVED = "class Model:\n    def predict(self, x):\n        return {5}\n" + CHAT_ONLY.partition("\n")[2]
TRUSSES = {
    name: {"config.yaml": "", "model/model.py": text}
    for name, text in {
        "main": MAIN,
        "typed": TYPED,
        "request-only": REQUEST_ONLY,
        "leaving": LEAVING,
        "post-stream": POST_STREAM,
        "untyped": UNTYPED,
        "strings": STRINGS,
        "chat-only": CHAT_ONLY,
        "improved": IMPROVED,
    }.items()
}
SETTINGS = '[gateway]\ntruss_parity = "strict"\n[models.improved]\ntruss_parity = "improved"\n'


def say(truss: Trusses, text: str, **headers: str) -> Any:
    return truss.predict("main", json.dumps(text).encode(), **headers)


def stream(truss: Trusses, text: str, **headers: str) -> tuple[int, str | None, bytes, bool]:
    """Status, content type and body of a stream, and whether it ended well."""
    with truss.streaming("main", text, **headers) as response:
        try:
            body, ended = response.read(), True
        except http.client.IncompleteRead as broken:
            body, ended = broken.partial, False
        return response.status, response.headers["content-type"], body, ended


def post(truss: Trusses, path: str, body: Any, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return truss.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), named)


def listed(truss: Trusses, model: str) -> Any:
    """What the list of models says that one can do."""
    entries = {entry["id"]: entry for entry in json.loads(truss.get("/v1/models").body)["data"]}
    return entries[model]["capabilities"]


# ── 4: streams that fail ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["boom", "fastapi", "number", "starlette"])
@pytest.mark.parametrize("kind", ["before", "after", "abefore", "aafter"])
def test_a_generator_that_raises_ends_its_answer_as_if_it_were_complete(truss: Trusses, kind: str, name: str) -> None:
    assert stream(truss, f"{kind}:{name}") == (200, BINARY, b"fine" if "after" in kind else b"", True)


@pytest.mark.parametrize("name", ["int", "dict", "none", "bytearray"])
def test_an_item_that_is_no_text_breaks_the_connection_after_a_200(truss: Trusses, name: str) -> None:
    assert stream(truss, f"items:{name}") == (200, BINARY, b"fine", False)
    assert stream(truss, f"first:{name}") == (200, BINARY, b"", False)


def test_an_array_as_an_item_ends_the_answer_silently(truss: Trusses) -> None:
    assert stream(truss, "items:array") == (200, BINARY, b"fine", True)
    assert stream(truss, "first:array") == (200, BINARY, b"", True)


def test_texts_bytes_and_views_stream(truss: Trusses) -> None:
    assert stream(truss, "items:view") == (200, BINARY, b"finevmore", True)
    assert stream(truss, "fine:") == (200, BINARY, b"data: 1\n\ndata: 2\n\n", True)


@pytest.mark.parametrize("kind", ["before", "after", "abefore", "aafter"])
def test_a_gathered_stream_that_fails_says_what_was_raised(truss: Trusses, kind: str) -> None:
    boom = say(truss, f"{kind}:boom", accept=JSON)
    assert boom.error == (500, "500", "Unhandled exception: Boom: mid")
    assert say(truss, f"{kind}:fastapi", accept=JSON).error == (409, "600", "not now")
    assert say(truss, f"{kind}:number", accept=JSON).error == (422, "600", 7)


def test_gathered_items_are_their_texts(truss: Trusses) -> None:
    assert say(truss, "items:dict", accept=JSON).short == (200, JSON, b"\"fine{'a': 1}more\"")


@pytest.mark.parametrize(("name", "body"), [("later", b"data: 1\n\n"), ("at once", b"")])
def test_events_that_fail_break_off_without_a_word(truss: Trusses, name: str, body: bytes) -> None:
    assert stream(truss, f"events:{name}") == (200, "text/event-stream; charset=utf-8", body, False)


def test_a_stream_of_postprocess_that_fails_breaks_off(truss: Trusses) -> None:
    with truss.streaming("post-stream", 1) as response, pytest.raises(http.client.IncompleteRead) as broken:
        response.read()
    assert broken.value.partial == b"fine"


def test_the_slot_of_a_stream_that_ended_silently_is_free(truss: Trusses) -> None:
    for _ in range(3):
        stream(truss, "after:boom")
    assert stream(truss, "fine:")[2] == b"data: 1\n\ndata: 2\n\n"


# ── 5: types ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_type_of_predict_is_that_of_every_method(truss: Trusses) -> None:
    answer = post(truss, "/models/typed/v1/chat/completions", {"a": 1}, x_mine="seen")
    assert answer.short == (200, JSON, b'["In", "seen"]')
    wrong = post(truss, "/models/typed/v1/chat/completions", {"b": 1}, x_mine="seen")
    assert wrong.error == (400, "700", "Input Parsing Error:\n  `a`: Field required.")


def test_the_body_is_read_for_a_method_that_takes_nothing(truss: Trusses) -> None:
    assert post(truss, "/models/typed/v1/embeddings", {"a": 1}).short == (200, JSON, b'"called"')
    assert post(truss, "/models/typed/v1/embeddings", b"{").error[:2] == (400, "700")


def test_a_hot_reload_keeps_the_rules(truss: Trusses) -> None:
    assert truss.ask("POST", "/models/typed/hot-reload").status == 200
    answer = post(truss, "/models/typed/v1/chat/completions", {"a": 1}, x_mine="seen")
    assert answer.short == (200, JSON, b'["In", "seen"]')


def test_a_predict_that_takes_the_request_alone_leaves_other_methods_nothing(truss: Trusses) -> None:
    assert post(truss, "/models/request-only/v1/chat/completions", {"a": 1}).short == (200, JSON, b"[null]")
    assert truss.predict("request-only", b"\xff").short == (200, JSON, rb'"\u00ff"')


# ── 6, 7: definitions ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["untyped", "strings"])
def test_a_request_that_is_not_annotated_with_the_class_fails_the_load(truss: Trusses, model: str) -> None:
    words = "ModelDefinitionError: `predict` method with two arguments must have request as second argument"
    assert truss.reason(model).startswith(f"{words} (type annotated). Got: (x, request")
    assert truss.predict(model, b"1").error == (503, "600", f"Model with name {model} is not ready.")


def test_a_class_without_predict_fails_the_load(truss: Trusses) -> None:
    words = "Truss model must have a `predict` or `websocket` method."
    assert truss.reason("chat-only") == f"ModelDefinitionError: {words}"


# ── 8: errors with a status ──────────────────────────────────────────────────────────────────────────────────────────


def test_fastapis_exception_passes_without_its_headers(truss: Trusses) -> None:
    answer = say(truss, "sync:fastapi")
    assert answer.error == (409, "600", "not now")
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("name", ["starlette", "ours", "boom"])
def test_any_other_exception_is_the_generic_error(truss: Trusses, name: str) -> None:
    assert say(truss, f"sync:{name}").error == (500, "600", GENERIC)


def test_details_are_those_that_truss_can_show(truss: Trusses) -> None:
    assert say(truss, "sync:object").error == (500, "600", {"field": ["a", 1]})
    assert say(truss, "sync:empty").error == (422, "600", "")
    words = "Unhandled exception: TypeError: argument of type 'int' is not iterable"
    assert say(truss, "sync:number").error == (500, "500", words)


def test_an_exit_is_a_plain_500_and_the_worker_lives(truss: Trusses) -> None:
    answer = say(truss, "sync:exit")
    assert answer.short == (500, "text/plain; charset=utf-8", b"Internal Server Error")
    assert say(truss, "value:nan").status == 200


# ── 9: results ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bytes", "bytes"),
        ("set", "set"),
        ("datetime", "datetime"),
        ("decimal", "Decimal"),
        ("uuid", "UUID"),
        ("models", "BM"),
        ("dataclass", "Point"),
        ("iterator", "list_iterator"),
        ("coroutine", "coroutine"),
    ],
)
def test_what_truss_cannot_write_as_json_is_500(truss: Trusses, name: str, kind: str) -> None:
    words = f"Unhandled exception: TypeError: Object of type {kind} is not JSON serializable"
    assert say(truss, f"value:{name}").error == (500, "500", words)


@pytest.mark.parametrize(
    ("name", "kind"), [("set", "set"), ("models", "BM"), ("dataclass", "Point"), ("iterator", "list_iterator")]
)
def test_what_truss_cannot_write_as_msgpack_is_500(truss: Trusses, name: str, kind: str) -> None:
    words = f"Unhandled exception: TypeError: can not serialize '{kind}' object"
    assert truss.predict("main", msgpack.packb(f"value:{name}"), BINARY).error == (500, "500", words)


def test_what_truss_can_write_is_as_ever(truss: Trusses) -> None:
    for name, text in (("model", b'{"a":1}'), ("array", b"[[0, 1]]"), ("nan", b"NaN")):
        assert say(truss, f"value:{name}").short == (200, JSON, text)
    assert truss.predict("main", msgpack.packb("value:bytes"), BINARY).short == (200, BINARY, b"raw")
    decimal = msgpack.packb({b"__decimal__": True, b"data": "1.50"})
    assert truss.predict("main", msgpack.packb("value:decimal"), BINARY).short == (200, BINARY, decimal)


# ── 10: bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'"\xff"', "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
        (b"[" * 100_000, "RecursionError: maximum recursion depth exceeded"),
        (b"1" * 5000, "ValueError: Exceeds the limit (4300 digits) for integer string conversion"),
    ],
)
def test_json_that_cannot_be_decoded_is_500(truss: Trusses, body: bytes, words: str) -> None:
    status, code, message = truss.predict("main", body).error
    assert (status, code) == (500, "500")
    assert message.startswith(f"Unhandled exception: {words}")


def test_json_that_is_malformed_is_400(truss: Trusses) -> None:
    words = "Invalid JSON payload: Expecting value: line 1 column 1 (char 0)"
    assert truss.predict("main", b"").error == (400, "700", words)


# ── O5: the /v1 routes ───────────────────────────────────────────────────────────────────────────────────────────────

CHAT = "/models/main/v1/chat/completions"


@pytest.mark.parametrize("model", ["in the URL", "in the body"])
def test_a_v1_method_gets_the_body_and_its_value_is_the_answer(truss: Trusses, model: str) -> None:
    body, path = {"messages": "anything", "temperature": "hot"}, CHAT
    if model == "in the body":
        body, path = {"model": "main", **body}, "/v1/chat/completions"
    assert post(truss, path, body).short == (200, JSON, json.dumps(["dict", body]).encode())
    packed = msgpack.packb(body)
    answer = truss.ask("POST", path, packed, {"content-type": BINARY})
    assert answer.short == (200, BINARY, msgpack.packb(["dict", body]))


def test_every_v1_method_of_truss_is_raw(truss: Trusses) -> None:
    routes = {path.removeprefix("/v1/") for path in listed(truss, "main")["routes"]}
    body = {"input": ["anything"], "messages": 1}
    assert routes >= {"completions", "messages"}
    for name in routes & {"completions", "messages", "responses"}:
        assert post(truss, f"/models/main/v1/{name}", body).short == (200, JSON, json.dumps({name: body}).encode())


def test_a_v1_body_may_be_any_json(truss: Trusses) -> None:
    assert post(truss, CHAT, b"[1]", content_type="text/plain").short == (200, JSON, b'["list", [1]]')


def test_a_v1_generator_is_an_octet_stream_of_its_texts(truss: Trusses) -> None:
    answer = post(truss, CHAT, {"name": "fine:", "stream": False})
    assert answer.short == (200, BINARY, b"data: 1\n\ndata: 2\n\n")


def test_a_v1_generator_is_gathered_for_those_who_accept_json_alone_but_not_for_openais_client(
    truss: Trusses,
) -> None:
    gathered = post(truss, CHAT, {"name": "fine:"}, accept=JSON)
    assert gathered.short == (200, JSON, rb'"data: 1\n\ndata: 2\n\n"')
    streamed = post(truss, CHAT, {"name": "fine:"}, accept=JSON, user_agent="OpenAI/Python 2.0")
    assert streamed.short == (200, BINARY, b"data: 1\n\ndata: 2\n\n")


def test_errors_of_a_v1_method_are_trusss(truss: Trusses) -> None:
    assert post(truss, CHAT, {"name": "sync:boom"}).error == (500, "600", GENERIC)
    assert post(truss, CHAT, {"name": "sync:fastapi"}).error == (409, "600", "not now")
    status, code, message = post(truss, CHAT, b"{").error
    assert (status, code) == (400, "700")
    assert message.startswith("Invalid JSON payload: ")


def test_a_response_of_a_v1_method_passes_with_trusss_headers(truss: Trusses) -> None:
    answer = post(truss, CHAT, {"name": "refused:"})
    assert answer.short == (422, "text/plain; charset=utf-8", b"mine")
    assert answer.headers["x-baseten-error-code"] == "700"


def test_a_v1_method_that_is_missing_is_404_after_a_look_at_the_body(truss: Trusses) -> None:
    path = "/models/main/v1/embeddings"
    words = "`embeddings` must only be called if model has it."
    assert post(truss, path, {"input": "x"}).error == (404, "700", words)
    assert post(truss, path, b"{").error[:2] == (400, "700")


def test_a_v1_route_of_a_model_that_is_not_ready_is_trusss_503(truss: Trusses) -> None:
    answer = post(truss, "/models/untyped/v1/chat/completions", {})
    assert answer.error == (503, "600", "Model with name untyped is not ready.")


def test_nothing_is_derived_for_a_strict_model(truss: Trusses) -> None:
    assert listed(truss, "main")["derived"] == []


# ── clients that leave ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v1/models/leaving:predict", "/models/leaving/v1/chat/completions"])
def test_a_strict_model_that_asks_whether_its_client_left_is_told(truss: Trusses, path: str) -> None:
    name = path.rpartition("/")[2].rpartition(":")[2]
    with contextlib.closing(truss.connect()) as connection:
        connection.request("POST", path, json.dumps(name if "predict" in path else {"name": name, "stream": True}))
        response = connection.getresponse()
        assert (response.status, response.read(1)) == (200, b"x")
    assert truss.wait_for_file(name) == "stopped by itself"


# ── beside it ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_may_be_improved_beside_strict_ones(truss: Trusses) -> None:
    assert truss.predict("improved", b"1").short == (200, JSON, b"[5]")
    answer = post(truss, "/v1/chat/completions", {"model": "improved", "messages": []})
    assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"
    assert "x-baseten-error-code" not in answer.headers


def test_an_unknown_model_is_named_in_the_shape_of_the_route(truss: Trusses) -> None:
    answer = post(truss, "/v1/chat/completions", {"model": "nobody"})
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "model_not_found")
