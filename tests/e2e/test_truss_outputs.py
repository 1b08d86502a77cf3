"""What becomes of a truss's result: plain values, Response objects, streams, and streams that are gathered."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any

import msgpack
import pytest

from .trusses import BINARY, JSON, RAISED, Trusses, chunks

LINES, EVENTS = "application/x-ndjson", "text/event-stream"

# Results by name; each is made anew for every call.
VALUES = """
import dataclasses, datetime, decimal, uuid
from typing import Any
import numpy as np
from pydantic import BaseModel

class BM(BaseModel):
    a: int
    when: datetime.date | None = None

@dataclasses.dataclass
class Point:
    x: int
    inner: Any = None

class Odd:
    pass

def circle():
    found = []
    found.append(found)
    return found

RESULTS = {
    "dict": lambda: {"a": [1, 2.5, None], "b": {"c": True}},
    "list": lambda: [1, "x"],
    "tuple": lambda: (1, 2),
    "str": lambda: 'sa"y',
    "int": lambda: 12,
    "float": lambda: 0.1,
    "bool": lambda: False,
    "none": lambda: None,
    "unicode": lambda: "äé€😀",
    "keys": lambda: {1: "int", None: "none", True: "bool"},
    "nan": lambda: [float("nan"), float("inf"), float("-inf")],
    "array": lambda: np.array([[1, 2], [3, 4]]),
    "numpy int": lambda: np.int64(3),
    "numpy float": lambda: {"x": np.float32(0.5)},
    "numpy bool": lambda: np.bool_(True),
    "nested array": lambda: {"a": [np.arange(3)]},
    "model": lambda: BM(a=1),
    "nested model": lambda: [BM(a=1, when=datetime.date(2026, 1, 2))],
    "datetime": lambda: datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    "date": lambda: datetime.date(2026, 1, 2),
    "time": lambda: datetime.time(3, 4, 5),
    "aware time": lambda: datetime.time(3, 4, 5, tzinfo=datetime.UTC),
    "complex": lambda: 1.5 + 2j,
    "delta": lambda: datetime.timedelta(days=1, seconds=2),
    "decimal": lambda: decimal.Decimal("1.50"),
    "uuid": lambda: uuid.UUID(int=7),
    "set": lambda: {5},
    "dataclass": lambda: Point(1, Point(2)),
    "bytes": lambda: b"raw\\x00",
    "odd": lambda: {"x": Odd()},
    "circle": lambda: circle(),
}

class Model:
    def predict(self, name):
        return RESULTS[name]()

class Plain:
    pass
"""
RESPONSES = """
import asyncio, time
from pathlib import Path
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from sse_starlette.sse import EventSourceResponse
from starlette.background import BackgroundTask

def tell():
    Path("../../shared/background").write_text("done")

async def tell_later(name):
    while not Path(f"../../shared/{name} left").exists():
        await asyncio.sleep(0.01)
    Path(f"../../shared/{name} told").write_text("done")

def wait():
    while not Path("../../shared/go on").exists():
        time.sleep(0.01)

async def three():
    for n in range(3):
        yield f"{n},"

def sync_three():
    yield from ("a", "b")

async def events():
    yield {"event": "tick", "data": "1"}
    yield {"data": "2"}

RESPONSES = {
    "plain": lambda: PlainTextResponse("text", headers={"X-Own": "yes"}),
    "created": lambda: JSONResponse({"a": 1}, status_code=201),
    "refused": lambda: JSONResponse({"mine": True}, status_code=422, headers={"Retry-After": "7"}),
    "broken": lambda: PlainTextResponse("mine", status_code=503),
    "elsewhere": lambda: RedirectResponse("http://example.com/"),
    "bare": lambda: Response(b"\\x00\\x01"),
    "empty": lambda: Response(status_code=204),
    "204": lambda: JSONResponse({"a": 1}, status_code=204),
    "304": lambda: Response(b"body", status_code=304),
    "204 stream": lambda: StreamingResponse(sync_three(), status_code=204),
    "cookies": lambda: cookies(),
    "stream": lambda: StreamingResponse(three(), media_type="text/event-stream", status_code=202),
    "sync stream": lambda: StreamingResponse(sync_three(), media_type="text/plain", headers={"X-Own": "yes"}),
    "bare stream": lambda: StreamingResponse(sync_three()),
    "file": lambda: FileResponse("file.txt", media_type="text/x-mine", filename="own.txt"),
    "background": lambda: PlainTextResponse("text", background=BackgroundTask(tell)),
    "202": lambda: Response(status_code=202, background=BackgroundTask(tell_later, "202")),
    "204 task": lambda: Response(status_code=204, background=BackgroundTask(tell_later, "204 task")),
    "text task": lambda: PlainTextResponse("text", background=BackgroundTask(tell_later, "text task")),
    "waits": lambda: PlainTextResponse("text", background=BackgroundTask(wait)),
    "sized": lambda: StreamingResponse(sync_three(), headers={"Content-Length": "2"}),
    "longer": lambda: StreamingResponse(sync_three(), headers={"Content-Length": "1"}),
    "shorter": lambda: StreamingResponse(sync_three(), headers={"Content-Length": "3"}),
    "events": lambda: EventSourceResponse(events(), sep="\\n"),
}

def cookies():
    response = PlainTextResponse("")
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response

class Model:
    def predict(self, name):
        return RESPONSES[name]()
"""
# Streams whose next item waits for the test, by way of files.
STREAMS = """
import asyncio, decimal, pathlib, time
import numpy as np
import pydantic

class Fields(pydantic.BaseModel):
    a: int
    text: str

def wait(name):
    while not (pathlib.Path("../../shared") / name).exists():
        time.sleep(0.005)

class Model:
    def predict(self, name):
        return getattr(self, name)()

    def texts(self):
        yield from ("one", "zwö", "")

    def raw(self):
        yield b"\\xff\\x00"
        yield bytearray(b"more")

    def gated(self):
        yield "first"
        wait("gated")
        yield "second"

    async def agated(self):
        yield b"first"
        while not (pathlib.Path("../../shared") / "agated").exists():
            await asyncio.sleep(0.005)
        yield b"second"

    def empty(self):
        return
        yield

    def values(self):
        yield {"a": [1, "ä"]}
        yield 2
        yield None
        yield np.array([1, 2])
        yield decimal.Decimal("0.5")

    async def avalues(self):
        for value in self.values():
            yield value

    def fields(self):
        yield Fields(a=1, text="two\\nlines")
        yield {"a": 2}

    def texts_inside(self):
        yield {"text": "one"}
        yield "two\\nlines"
        yield b"three"

    def usage_last(self):
        yield "one "
        yield {"tokens": 1}

    def gated_values(self):
        yield {"n": 1}
        wait("gated_values")
        yield {"n": 2}

    def odd_value(self):
        yield {"n": 1}
        wait("odd_value")
        yield {"image": b"\\xff"}

    def fails_late(self):
        yield [1]
        wait("fails_late")
        raise ValueError("boom")

    def odd_first(self):
        yield object()

    def odd_later(self):
        yield "fine"
        wait("odd_later")
        yield object()

    def sse(self):
        yield "data: 1\\n\\n"
        yield "data: 2\\n\\n"

    def iterator(self):
        return map(str, range(3))

    def numbers(self):
        yield from range(3)

    def mixed(self):
        yield "a"
        yield b"\\xc3"
        yield b"\\xa4"
        yield 1

    async def anumbers(self):
        for n in range(3):
            yield n
"""
GENERATOR = "class Model:\n    def predict(self, n):\n        for i in range(n):\n            yield f'{i} '\n"
ASYNC_GENERATOR = GENERATOR.replace("    def", "    async def")
GENERATOR_INPUT = """
class Model:
    def preprocess(self, n):
        yield from range(n)

    def predict(self, numbers):
        return [type(numbers).__name__, list(numbers)]
"""
POST_STREAM = """
class Model:
    def predict(self, n):
        return n

    def postprocess(self, n):
        for i in range(n):
            yield str(i)
"""
AWAITABLE = """
import functools

class Callable:
    async def __call__(self, model_input):
        return ["called", model_input]

class Model:
    def __init__(self):
        self.predict = Callable()
"""
POST_REFUSES = """
from starlette.responses import PlainTextResponse

class Model:
    def predict(self, name):
        return iter(["x"]) if name == "iterator" else self.stream() if name == "stream" else PlainTextResponse("x")

    def stream(self):
        yield "x"

    def postprocess(self, value):
        return "never"
"""
TRUSSES = {
    name: {"config.yaml": "", "model/model.py": text}
    for name, text in {
        "values": VALUES,
        "responses": RESPONSES,
        "streams": STREAMS,
        "generator": GENERATOR,
        "async-generator": ASYNC_GENERATOR,
        "generator-input": GENERATOR_INPUT,
        "post-stream": POST_STREAM,
        "awaitable": AWAITABLE,
        "post-refuses": POST_REFUSES,
    }.items()
}
TRUSSES["responses"]["file.txt"] = "in a file"

# ── plain values ─────────────────────────────────────────────────────────────────────────────────────────────────────

AS_JSON = [
    ("dict", '{"a": [1, 2.5, null], "b": {"c": true}}'),
    ("list", '[1, "x"]'),
    ("tuple", "[1, 2]"),
    ("str", r'"sa\"y"'),
    ("int", "12"),
    ("float", "0.1"),
    ("bool", "false"),
    ("none", "null"),
    ("unicode", r'"\u00e4\u00e9\u20ac\ud83d\ude00"'),
    ("keys", '{"1": "bool", "null": "none"}'),
    ("nan", "[NaN, Infinity, -Infinity]"),
    ("array", "[[1, 2], [3, 4]]"),
    ("numpy int", "3"),
    ("numpy float", '{"x": 0.5}'),
    ("nested array", '{"a": [[0, 1, 2]]}'),
    ("model", '{"a":1,"when":null}'),
    # what Truss cannot write
    ("numpy bool", "true"),
    ("nested model", '[{"a": 1, "when": "2026-01-02"}]'),
    ("datetime", '"2026-01-02T03:04:05Z"'),
    ("date", '"2026-01-02"'),
    ("time", '"03:04:05"'),
    ("aware time", '"03:04:05Z"'),
    ("delta", '"P1DT2S"'),
    ("decimal", '"1.50"'),
    ("uuid", '"00000000-0000-0000-0000-000000000007"'),
    ("set", "[5]"),
    ("dataclass", '{"x": 1, "inner": {"x": 2, "inner": null}}'),
]
INT64 = msgpack.packb({b"nd": False, b"type": "<i8", b"data": (3).to_bytes(8, "little")})


@pytest.mark.parametrize(("name", "text"), AS_JSON)
def test_a_value_is_json_with_pythons_separators_and_escapes(truss: Trusses, name: str, text: str) -> None:
    assert truss.predict("values", json.dumps(name).encode()).short == (200, JSON, text.encode())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dict", {"a": [1, 2.5, None], "b": {"c": True}}),
        ("tuple", [1, 2]),
        ("str", 'sa"y'),
        ("none", None),
        ("unicode", "äé€😀"),
        ("model", {"a": 1, "when": None}),
        ("nested model", [{"a": 1, "when": {b"__dt_date_iso__": True, b"data": "2026-01-02"}}]),
        ("datetime", {b"__dt_datetime_iso__": True, b"data": "2026-01-02T03:04:05Z"}),
        ("date", {b"__dt_date_iso__": True, b"data": "2026-01-02"}),
        ("time", {b"__dt_time_iso__": True, b"data": "03:04:05"}),
        ("delta", {b"__dt_timedelta__": True, b"data": [1, 2, 0]}),
        ("decimal", {b"__decimal__": True, b"data": "1.50"}),
        ("complex", {b"complex": True, b"data": "(1.5+2j)"}),
        ("uuid", {b"__uuid__": True, b"data": "00000000-0000-0000-0000-000000000007"}),
        ("set", [5]),
        ("dataclass", {"x": 1, "inner": {"x": 2, "inner": None}}),
        ("numpy bool", {b"nd": False, b"type": "|b1", b"data": b"\x01"}),
        ("numpy int", {b"nd": False, b"type": "<i8", b"data": (3).to_bytes(8, "little")}),
        (
            "array",
            {
                b"nd": True,
                b"type": "<i8",
                b"kind": b"",
                b"shape": [2, 2],
                b"data": b"".join(n.to_bytes(8, "little") for n in (1, 2, 3, 4)),
            },
        ),
    ],
)
def test_a_binary_request_gets_msgpack_with_trusss_tags(truss: Trusses, name: str, value: Any) -> None:
    answer = truss.predict("values", msgpack.packb(name), BINARY)
    assert answer.short == (200, BINARY, msgpack.packb(value))


def test_bytes_are_the_raw_body_for_either_kind_of_request(truss: Trusses) -> None:
    assert truss.predict("values", b'"bytes"').short == (200, BINARY, b"raw\x00")
    assert truss.predict("values", msgpack.packb("bytes"), BINARY).short == (200, BINARY, b"raw\x00")


def test_a_value_without_a_form_is_500_and_names_its_type(truss: Trusses) -> None:
    way = "send vars(value), or a dict of the attributes you need"
    words = f"Unhandled exception: TypeError: Object of type Odd is not JSON serializable (at $.x: {way})"
    assert truss.predict("values", b'"odd"').error == (500, "500", words)
    words = "Unhandled exception: TypeError: the result cannot be written as JSON: it contains itself (at $[0])"
    assert truss.predict("values", b'"circle"').error == (500, "500", words)
    words = f"Unhandled exception: TypeError: can not serialize 'Odd' object (at $.x: {way})"
    assert truss.predict("values", msgpack.packb("odd"), BINARY).error == (500, "500", words)


def test_a_time_with_a_zone_has_no_msgpack_form(truss: Trusses) -> None:
    told = "(it has a time zone; send value.isoformat())"
    words = f"Unhandled exception: TypeError: can not serialize 'time' object {told}"
    assert truss.predict("values", msgpack.packb("aware time"), BINARY).error == (500, "500", words)


def test_an_answer_says_its_length_and_nothing_of_errors(truss: Trusses) -> None:
    headers = truss.predict("values", b'"int"').headers
    assert headers["content-length"] == "2"
    assert not [name for name in headers if name.lower().startswith("x-baseten")]


def test_an_awaitable_that_a_callable_object_returns_is_awaited(truss: Trusses) -> None:
    assert truss.call("awaitable", 1) == ["called", 1]


# ── Response objects ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("binary", [False, True])
def test_a_response_passes_as_it_is(truss: Trusses, binary: bool) -> None:
    body, kind = (msgpack.packb("plain"), BINARY) if binary else (b'"plain"', JSON)
    answer = truss.predict("responses", body, kind)
    assert answer.short == (200, "text/plain; charset=utf-8", b"text")
    assert answer.headers["x-own"] == "yes"
    assert answer.headers["content-length"] == "4"


def test_a_status_below_300_gets_no_error_headers(truss: Trusses) -> None:
    answer = truss.predict("responses", b'"created"')
    assert answer.short == (201, JSON, b'{"a":1}')
    assert "x-baseten-error-code" not in answer.headers


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [("refused", 422, b'{"mine":true}'), ("broken", 503, b"mine"), ("elsewhere", 307, b"")],
)
def test_a_status_from_300_on_gets_trusss_error_headers(truss: Trusses, name: str, status: int, body: bytes) -> None:
    answer = truss.predict("responses", json.dumps(name).encode())
    assert (answer.status, answer.body) == (status, body)
    assert answer.headers.get_all("x-baseten-error-source") == ["04"]
    assert answer.headers.get_all("x-baseten-error-code") == ["700"]
    assert answer.headers["retry-after"] == ("7" if name == "refused" else None)
    assert answer.headers["location"] == ("http://example.com/" if name == "elsewhere" else None)


def test_a_response_without_a_content_type_gets_none(truss: Trusses) -> None:
    assert truss.predict("responses", b'"bare"').short == (200, None, b"\x00\x01")


def test_a_response_without_content_stays_without(truss: Trusses) -> None:
    answer = truss.predict("responses", b'"empty"')
    assert (answer.status, answer.body) == (204, b"")


@pytest.mark.parametrize("name", ["204", "304", "204 stream"])
def test_a_response_whose_status_allows_no_body_leaves_the_connection_to_the_next_answer(
    truss: Trusses, name: str
) -> None:
    with contextlib.closing(truss.connect()) as connection:
        connection.request("POST", "/v1/models/responses:predict", json.dumps(name))
        response = connection.getresponse()
        assert (response.status, response.headers["content-length"]) == (int(name[:3]), None)
        assert response.headers["transfer-encoding"] is None
        assert response.read() == b""
        connection.request("POST", "/v1/models/responses:predict", b'"plain"')
        assert connection.getresponse().read() == b"text"


def test_every_cookie_of_a_response_passes(truss: Trusses) -> None:
    cookies = truss.predict("responses", b'"cookies"').headers.get_all("set-cookie")
    assert cookies == ["a=1; Path=/; SameSite=lax", "b=2; Path=/; SameSite=lax"]


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
def test_a_streaming_response_streams_with_its_own_media_type_and_is_never_gathered(
    truss: Trusses, accept: str
) -> None:
    with truss.streaming("responses", "stream", Accept=accept) as response:
        assert response.status == 202
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert b"".join(chunks(response)) == b"0,1,2,"


def test_a_streaming_response_over_a_sync_generator_keeps_its_headers(truss: Trusses) -> None:
    with truss.streaming("responses", "sync stream") as response:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["x-own"] == "yes"
        assert b"".join(chunks(response)) == b"ab"


def test_a_streaming_response_without_a_media_type_gets_none(truss: Trusses) -> None:
    with truss.streaming("responses", "bare stream") as response:
        assert response.headers["content-type"] is None
        assert chunks(response) == [b"a", b"b"]


def test_an_event_source_response_is_its_events(truss: Trusses) -> None:
    with truss.streaming("responses", "events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert b"".join(chunks(response)) == b"event: tick\ndata: 1\n\ndata: 2\n\n"


def test_a_file_response_is_the_file(truss: Trusses) -> None:
    answer = truss.predict("responses", b'"file"')
    assert answer.short == (200, "text/x-mine; charset=utf-8", b"in a file")
    assert answer.headers["content-disposition"] == 'attachment; filename="own.txt"'
    assert answer.headers["content-length"] == "9"


def test_the_background_task_of_a_response_runs(truss: Trusses) -> None:
    assert truss.predict("responses", b'"background"').short == (200, "text/plain; charset=utf-8", b"text")
    assert truss.wait_for_file("background") == "done"


def test_a_client_does_not_wait_for_the_background_task_of_a_response(truss: Trusses) -> None:
    try:
        answer = truss.predict("responses", b'"waits"')
        assert (answer.body, answer.headers["content-length"]) == (b"text", "4")
    finally:
        truss.file("go on").touch()


@pytest.mark.parametrize("name", ["202", "204 task", "text task"])
def test_a_background_task_goes_on_when_the_client_has_its_answer_and_leaves(truss: Trusses, name: str) -> None:
    assert truss.predict("responses", json.dumps(name).encode()).status == {"202": 202, "204 task": 204}.get(name, 200)
    assert truss.call("values", "int") == 12  # by now it is known that the client left
    truss.file(f"{name} left").touch()
    assert truss.wait_for_file(f"{name} told") == "done"


def test_a_stream_keeps_to_the_length_that_its_response_says(truss: Trusses) -> None:
    with truss.streaming("responses", "sized") as response:
        assert (response.headers["content-length"], response.read()) == ("2", b"ab")


def test_a_stream_of_another_length_than_its_response_says_never_looks_whole(truss: Trusses) -> None:
    with truss.streaming("responses", "shorter") as response, pytest.raises(http.client.IncompleteRead):
        response.read()
    with contextlib.closing(truss.connect()) as connection:
        connection.request("POST", "/v1/models/responses:predict", b'"longer"')
        assert connection.getresponse().read() == b"a"
        with pytest.raises(ConnectionError):
            connection.request("POST", "/v1/models/responses:predict", b'"plain"')
            connection.getresponse()


@pytest.mark.parametrize("what", ["stream", "response"])
def test_a_stream_or_a_response_cannot_go_through_postprocess(truss: Trusses, what: str) -> None:
    assert truss.predict("post-refuses", json.dumps(what).encode()).error == (500, "600", RAISED)


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["generator", "async-generator"])
def test_a_generator_is_an_octet_stream_in_chunks(truss: Trusses, model: str) -> None:
    with truss.streaming(model, 3) as response:
        assert (response.status, response.headers["content-type"]) == (200, BINARY)
        assert "content-length" not in response.headers
        assert b"".join(chunks(response)) == b"0 1 2 "


@pytest.mark.parametrize("name", ["gated", "agated"])
def test_an_item_is_a_chunk_that_arrives_before_the_next_is_made(truss: Trusses, name: str) -> None:
    with truss.streaming("streams", name) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.fp.readline() == b"5\r\n"
        assert response.fp.read(7) == b"first\r\n"
        truss.file(name).touch()
        assert chunks(response) == [b"second"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("texts", "onezwö".encode()),
        ("raw", b"\xff\x00more"),
        ("empty", b""),
        ("sse", b"data: 1\n\ndata: 2\n\n"),
        ("iterator", b"012"),
    ],
)
def test_items_go_as_they_are(truss: Trusses, name: str, body: bytes) -> None:
    with truss.streaming("streams", name) as response:
        assert (response.status, response.headers["content-type"]) == (200, BINARY)
        assert b"".join(chunks(response)) == body


VALUES_AS_JSON = ['{"a": [1, "\\u00e4"]}', "2", "null", "[1, 2]", '"0.5"']


@pytest.mark.parametrize("name", ["values", "avalues"])
@pytest.mark.parametrize("accept", ["*/*", "application/x-ndjson", "application/json, text/plain"])
def test_a_stream_that_begins_with_no_text_is_a_json_document_a_line(truss: Trusses, name: str, accept: str) -> None:
    answer = truss.predict("streams", json.dumps(name).encode(), accept=accept)
    assert answer.short == (200, LINES, "".join(f"{line}\n" for line in VALUES_AS_JSON).encode())


@pytest.mark.parametrize("name", ["values", "avalues"])
@pytest.mark.parametrize("accept", ["text/event-stream", "Text/Event-Stream, */*;q=0.1"])
def test_a_client_that_asks_for_events_gets_each_of_them_as_one(truss: Trusses, name: str, accept: str) -> None:
    answer = truss.predict("streams", json.dumps(name).encode(), accept=accept)
    assert answer.short == (200, EVENTS, "".join(f"data: {line}\n\n" for line in VALUES_AS_JSON).encode())


def test_pydantic_instances_and_texts_in_such_a_stream_are_lines_too(truss: Trusses) -> None:
    assert truss.predict("streams", b'"fields"').short == (200, LINES, b'{"a":1,"text":"two\\nlines"}\n{"a": 2}\n')
    lines = truss.predict("streams", b'"texts_inside"').body.splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "one"}, "two\nlines", "three"]


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_a_stream_that_begins_with_text_stays_text_whatever_comes_in_it(truss: Trusses, accept: str) -> None:
    answer = truss.predict("streams", b'"usage_last"', accept=accept)
    assert answer.short == (200, BINARY, b'one {"tokens": 1}')


def test_a_line_arrives_before_the_next_is_made(truss: Trusses) -> None:
    with truss.streaming("streams", "gated_values") as response:
        assert response.headers["x-accel-buffering"] == "no"
        assert response.readline() == b'{"n": 1}\n'
        truss.file("gated_values").touch()
        assert response.read() == b'{"n": 2}\n'


@pytest.mark.parametrize(
    ("name", "words"),
    [("odd_value", "(at $.image: not UTF-8 text; send base64.b64encode(value).decode())"), ("fails_late", "raised an")],
)
@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_lines_and_events_that_fail_end_with_the_error_and_a_broken_connection(
    truss: Trusses, name: str, words: str, accept: str
) -> None:
    truss.file(name).unlink(missing_ok=True)
    with truss.streaming("streams", name, accept=accept) as response:
        assert response.readline()
        truss.file(name).touch()
        with pytest.raises(http.client.IncompleteRead) as broken:
            response.read()
    last = broken.value.partial.strip()
    assert last.startswith(b"event: error\ndata: ") == (accept == EVENTS)
    assert words in json.loads(last.removeprefix(b"event: error\ndata: "))["error"]


def test_a_first_item_without_a_form_is_500(truss: Trusses) -> None:
    odd = "item 1 of the stream: Object of type object is not JSON serializable (convert it to a dict, a list or a str)"
    words = f"Unhandled exception: TypeError: {odd}"
    assert truss.predict("streams", b'"odd_first"').error == (500, "500", words)


def test_a_later_item_without_a_form_breaks_the_stream(truss: Trusses) -> None:
    with truss.streaming("streams", "odd_later") as response:
        assert response.status == 200
        assert response.read(4) == b"fine"
        truss.file("odd_later").touch()
        with pytest.raises(http.client.IncompleteRead):
            response.read()


def test_a_binary_request_gets_its_stream_raw_too(truss: Trusses) -> None:
    assert truss.predict("generator", msgpack.packb(2), BINARY).short == (200, BINARY, b"0 1 ")


def test_predict_gets_the_generator_that_preprocess_is(truss: Trusses) -> None:
    assert truss.call("generator-input", 3) == ["generator", [0, 1, 2]]


# ── gathering ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "text"),
    [("numbers", "012"), ("anumbers", "012"), ("mixed", "aä1"), ("texts", "onezwö"), ("empty", "")],
)
def test_a_client_that_accepts_json_alone_gets_the_stream_as_one_string(truss: Trusses, name: str, text: str) -> None:
    answer = truss.predict("streams", json.dumps(name).encode(), accept=JSON)
    assert answer.short == (200, JSON, json.dumps(text).encode())


@pytest.mark.parametrize("model", ["generator", "async-generator"])
def test_a_binary_request_is_gathered_into_a_msgpack_string(truss: Trusses, model: str) -> None:
    assert truss.predict(model, msgpack.packb(3), BINARY, accept=JSON).short == (200, BINARY, msgpack.packb("0 1 2 "))


@pytest.mark.parametrize(
    "accept", ["*/*", "text/event-stream", "application/json, text/plain", "application/json;q=1", "Application/JSON"]
)
def test_with_any_other_accept_it_streams(truss: Trusses, accept: str) -> None:
    assert truss.predict("generator", b"2", accept=accept).short == (200, BINARY, b"0 1 ")


def test_the_openai_client_is_never_gathered_for(truss: Trusses) -> None:
    headers = {"accept": JSON, "user_agent": "AsyncOpenAI/Python 3.54"}
    assert truss.predict("generator", b"2", **headers).short == (200, BINARY, b"0 1 ")


@pytest.mark.parametrize("accept", ["*/*", JSON])
def test_a_generator_out_of_postprocess_streams_and_is_never_gathered(truss: Trusses, accept: str) -> None:
    assert truss.predict("post-stream", b"3", accept=accept).short == (200, BINARY, b"012")
