"""What a truss gets for a request: JSON, binary and typed bodies, and the request itself."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgpack
import pytest

from .trusses import BINARY, JSON, Trusses

LOOK = """
class Model:
    def predict(self, model_input):
        return f"{type(model_input).__name__} {model_input!r}"
"""
TYPES = """
from pydantic import BaseModel

class Item(BaseModel):
    value: int

class In(BaseModel):
    items: list[Item]
"""
# Each method's own annotation types its own input.
TYPED = (
    TYPES
    + """
class Model:
    def predict(self, model_input: In) -> In:
        assert type(model_input) is In
        return model_input

    def chat_completions(self, model_input):
        return type(model_input).__name__
"""
)
TYPED_FIRST_STEP = (
    TYPES
    + """
class Model:
    def preprocess(self, model_input: In):
        return [item.value for item in model_input.items]

    def predict(self, values: int):
        return sum(values)
"""
)
NOTHING = "class Model:\n    def predict(self):\n        return 'called'\n"
REQUEST = """
from fastapi import Request

class Model:
    async def predict(self, request: Request):
        with request.state.watch_disconnect() as gone:
            left = gone.is_set()
        return {
            "class": type(request).__module__,
            "method": request.method,
            "path": request.url.path,
            "query": dict(request.query_params),
            "header": request.headers["x-mine"],
            "client": request.client.host,
            "body": (await request.body()).decode(),
            "json": await request.json(),
            "disconnected": await request.is_disconnected(),
            "left": left,
        }

    def chat_completions(self, model_input):
        return type(model_input).__name__
"""
BOTH = """
from starlette.requests import Request

class Model:
    async def predict(self, model_input, request: Request):
        return [model_input, request.headers["x-mine"], (await request.body()).decode()]
"""
SYNC_BOTH = """
from starlette.requests import Request

class Model:
    def predict(self, model_input, request: Request):
        with request.state.watch_disconnect() as gone:
            return [model_input, request.query_params["q"], gone.is_set()]
"""
# Truss's own documentation shows this form, which Truss refuses.
UNTYPED = """
class Model:
    def predict(self, model_input, request):
        return [model_input, type(request).__name__, request.headers["x-mine"]]
"""
STRINGS = (
    "from __future__ import annotations\nfrom starlette.requests import Request\n"
    + TYPES
    + """
class Model:
    def predict(self, model_input: In, request: Request) -> list:
        return [type(model_input).__name__, request.headers["x-mine"]]
"""
)
STRING_REQUEST = """
from __future__ import annotations
from starlette.requests import Request

class Model:
    def predict(self, request: Request):
        return request.headers["x-mine"]
"""
# Hooks may ask for the request too.
HOOKS = """
from starlette.requests import Request

class Model:
    def preprocess(self, model_input, request: Request):
        return [model_input, request.headers["x-mine"]]

    def predict(self, model_input):
        return [*model_input, "predict"]

    async def postprocess(self, model_output, request: Request):
        return [*model_output, (await request.body()).decode()]
"""
TRUSSES = {
    name: {"config.yaml": "", "model/model.py": text}
    for name, text in {
        "look": LOOK,
        "typed": TYPED,
        "typed-first-step": TYPED_FIRST_STEP,
        "nothing": NOTHING,
        "request": REQUEST,
        "both": BOTH,
        "sync-both": SYNC_BOTH,
        "untyped": UNTYPED,
        "strings": STRINGS,
        "string-request": STRING_REQUEST,
        "hooks": HOOKS,
    }.items()
}


def chat(truss: Trusses, model: str) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    answer = truss.ask("POST", "/v1/chat/completions", json.dumps(body).encode())
    return json.loads(answer.body)["choices"][0]["message"]["content"]


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (b'{"a": [1, 2.5, null]}', "dict {'a': [1, 2.5, None]}"),
        (b"null", "NoneType None"),
        (b'"text"', "str 'text'"),
        (b"[true]", "list [True]"),
        (b"7", "int 7"),
        (b"NaN", "float nan"),
        (b"-Infinity", "float -inf"),
        (b'{"a": 1, "a": 2}', "dict {'a': 2}"),
        (b' {"a" : "\\u00e4"} ', "dict {'a': 'ä'}"),
        ('"ä"'.encode("utf-16"), "str 'ä'"),
        ('"ä"'.encode("utf-32"), "str 'ä'"),
    ],
)
def test_any_json_value_is_an_input(truss: Trusses, body: bytes, seen: str) -> None:
    assert truss.predict("look", body).short == (200, JSON, json.dumps(seen).encode())


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/json; charset=utf-8", "image/png"])
def test_a_body_is_json_whatever_its_content_type_says(truss: Trusses, content_type: str) -> None:
    assert truss.predict("look", b"1", content_type).short == (200, JSON, b'"int 1"')


def test_a_body_without_a_content_type_is_json(truss: Trusses) -> None:
    assert truss.ask("POST", "/v1/models/look:predict", b"1").short == (200, JSON, b'"int 1"')


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[1,]", "Illegal trailing comma before end of array: line 1 column 3 (char 2)"),
        (b"1 2", "Extra data: line 1 column 3 (char 2)"),
    ],
)
def test_malformed_json_is_400_with_the_words_of_the_parser(truss: Trusses, body: bytes, message: str) -> None:
    try:
        json.loads(body)
    except ValueError as error:
        message = str(error)  # they differ a little between versions of Python
    answer = truss.predict("look", body)
    assert answer.error == (400, "700", f"Invalid JSON payload: {message}")
    assert answer.body == json.dumps({"error": f"Invalid JSON payload: {message}"}, separators=(",", ":")).encode()


def test_an_empty_body_is_called_that_behind_the_words_of_the_parser(truss: Trusses) -> None:
    words = "Invalid JSON payload: Expecting value: line 1 column 1 (char 0); the body is empty"
    assert truss.predict("look", b"").error == (400, "700", words)


@pytest.mark.parametrize(
    "body", [b'"\xff\xfe\xfd"', b"[" * 100_000, b"9" * 4301], ids=["bad UTF-8", "too deep", "too many digits"]
)
def test_json_that_python_cannot_hold_is_400_too(truss: Trusses, body: bytes) -> None:
    status, code, message = truss.predict("look", body).error
    assert (status, code) == (400, "700")
    assert message.startswith("Invalid JSON payload: ")


# ── binary ───────────────────────────────────────────────────────────────────────────────────────────────────────────

PACKED = [
    ({"a": b"\x00", "b": (1, None)}, "dict {'a': b'\\x00', 'b': [1, None]}"),
    (
        {b"__dt_datetime_iso__": True, b"data": "2026-01-02T03:04:05Z"},
        "datetime datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)",
    ),
    ({b"__dt_date_iso__": True, b"data": "2026-01-02"}, "date datetime.date(2026, 1, 2)"),
    ({b"__dt_time_iso__": True, b"data": "03:04:05"}, "time datetime.time(3, 4, 5)"),
    (
        {b"__dt_timedelta__": True, b"data": [1, 2, 3]},
        "timedelta datetime.timedelta(days=1, seconds=2, microseconds=3)",
    ),
    ({b"__decimal__": True, b"data": "1.50"}, "Decimal Decimal('1.50')"),
    (
        {b"__uuid__": True, b"data": "12345678-1234-5678-1234-567812345678"},
        "UUID UUID('12345678-1234-5678-1234-567812345678')",
    ),
    (
        {b"nd": True, b"type": "<i8", b"kind": b"", b"shape": [2, 1], b"data": struct.pack("<qq", 3, 4)},
        "ndarray array([[3],\n       [4]])",
    ),
    ({b"nd": False, b"type": "<f4", b"data": struct.pack("<f", 0.5)}, "float32 np.float32(0.5)"),
    ({b"complex": True, b"data": "(1+2j)"}, "complex (1+2j)"),
    ([{"deep": {b"__decimal__": True, b"data": "2"}}], "list [{'deep': Decimal('2')}]"),
]


@pytest.mark.parametrize(("value", "seen"), PACKED)
def test_a_binary_body_is_msgpack_with_trusss_tags(truss: Trusses, value: Any, seen: str) -> None:
    answer = truss.predict("look", msgpack.packb(value), BINARY)
    assert answer.short == (200, BINARY, msgpack.packb(seen))


@pytest.mark.parametrize("content_type", ["Application/Octet-Stream", "application/octet-stream; version=1"])
def test_octet_stream_is_binary_in_any_case_and_with_parameters(truss: Trusses, content_type: str) -> None:
    assert truss.predict("look", msgpack.packb(1), content_type).short == (200, BINARY, msgpack.packb("int 1"))


@pytest.mark.parametrize("content_type", ["application/octet-streams", "text/application/octet-stream"])
def test_nothing_else_is_binary(truss: Trusses, content_type: str) -> None:
    assert truss.predict("look", b"1", content_type).short == (200, JSON, b'"int 1"')


@pytest.mark.parametrize("verb", ["predict", "predict_binary"])
def test_both_predict_routes_take_both_forms(truss: Trusses, verb: str) -> None:
    path = f"/v1/models/look:{verb}"
    assert truss.ask("POST", path, b"1", {"content-type": JSON}).short == (200, JSON, b'"int 1"')
    binary = truss.ask("POST", path, msgpack.packb(1), {"content-type": BINARY})
    assert binary.short == (200, BINARY, msgpack.packb("int 1"))


@pytest.mark.parametrize("body", [b"", b"\x93\x01", b"\xc1", b"\x01\x01"])
def test_broken_msgpack_is_400(truss: Trusses, body: bytes) -> None:
    status, code, _ = truss.predict("look", body, BINARY).error
    assert (status, code) == (400, "700")


def test_arrays_of_objects_which_hide_pickles_are_refused(truss: Trusses) -> None:
    array = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": b"cos\nsystem\n"}
    assert truss.predict("look", msgpack.packb(array), BINARY).error == (400, "700", "unsupported payload")


# ── typed ────────────────────────────────────────────────────────────────────────────────────────────────────────────

ONE = "Input Parsing Error:\n"
WRONG = [
    (
        b'{"items": [{"value": "x"}, {}]}',
        "Input Parsing Errors:\n"
        "  `items[0].value`: Input should be a valid integer, unable to parse string as an integer.\n"
        "  `items[1].value`: Field required.",
    ),
    (b"{}", f"{ONE}  `items`: Field required."),
    (b"", f"{ONE}  the body: Expecting value: line 1 column 1 (char 0); the body is empty."),
    (b"[]", f"{ONE}  the body: Input should be a valid dictionary or instance of In."),
]


def test_a_typed_input_is_an_instance_of_its_type_from_json_and_binary(truss: Trusses) -> None:
    assert truss.predict("typed", b'{"items": [{"value": "3"}]}').short == (200, JSON, b'{"items":[{"value":3}]}')
    packed = msgpack.packb({"items": [{"value": 3}]})
    assert truss.predict("typed", packed, BINARY).short == (200, BINARY, packed)


@pytest.mark.parametrize(("body", "message"), WRONG)
def test_an_input_of_the_wrong_type_is_400_with_trusss_words(truss: Trusses, body: bytes, message: str) -> None:
    assert truss.predict("typed", body).error == (400, "700", message)


def test_a_binary_input_of_the_wrong_type_is_400_too(truss: Trusses) -> None:
    assert truss.predict("typed", msgpack.packb({}), BINARY).error == (400, "700", f"{ONE}  `items`: Field required.")


def test_the_first_step_of_the_pipeline_types_the_input(truss: Trusses) -> None:
    assert truss.predict("typed-first-step", b'{"items": [{"value": 3}, {"value": 4}]}').short == (200, JSON, b"7")
    assert truss.predict("typed-first-step", b"{}").error == (400, "700", f"{ONE}  `items`: Field required.")


def test_the_type_of_predict_is_not_that_of_other_methods(truss: Trusses) -> None:
    assert chat(truss, "typed") == "dict"


# ── the request ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_method_that_asks_for_the_request_gets_starlettes(truss: Trusses) -> None:
    headers = {"x-mine": "äöü".encode().decode("latin-1"), "content-type": JSON}
    answer = truss.ask("POST", "/v1/models/request:predict?q=1&r=%20", b'{"a": 1}', headers)
    assert json.loads(answer.body) == {
        "class": "starlette.requests",
        "method": "POST",
        "path": "/v1/models/request:predict",
        "query": {"q": "1", "r": " "},
        "header": headers["x-mine"],
        "client": "127.0.0.1",
        "body": '{"a": 1}',
        "json": {"a": 1},
        "disconnected": False,
        "left": False,
    }


def test_inputs_and_request_come_together_and_the_body_stays_readable(truss: Trusses) -> None:
    assert truss.call("both", {"a": 1}, x_mine="yes") == [{"a": 1}, "yes", '{"a": 1}']


def test_a_sync_method_gets_the_request_on_its_thread(truss: Trusses) -> None:
    answer = truss.ask("POST", "/v1/models/sync-both:predict?q=why", b"5")
    assert answer.short == (200, JSON, b'[5, "why", false]')


def test_the_body_of_a_method_that_wants_none_is_not_parsed(truss: Trusses) -> None:
    assert truss.predict("nothing", b"{").short == (200, JSON, b'"called"')
    assert truss.predict("nothing", b"\xc1", BINARY).short == (200, BINARY, msgpack.packb("called"))


def test_a_request_only_predict_takes_bodies_that_are_no_json(truss: Trusses) -> None:
    assert truss.predict("string-request", b"\xff", x_mine="seen").short == (200, JSON, b'"seen"')


def test_a_request_only_predict_leaves_other_methods_their_inputs(truss: Trusses) -> None:
    assert chat(truss, "request") == "dict"


def test_a_second_parameter_named_request_is_the_request_without_an_annotation(truss: Trusses) -> None:
    assert truss.call("untyped", 1, x_mine="seen") == [1, "Request", "seen"]


def test_annotations_that_are_strings_count(truss: Trusses) -> None:
    assert truss.call("strings", {"items": []}, x_mine="seen") == ["In", "seen"]
    assert truss.predict("strings", b"{}").error == (400, "700", f"{ONE}  `items`: Field required.")


def test_hooks_may_ask_for_the_request(truss: Trusses) -> None:
    assert truss.call("hooks", 1, x_mine="seen") == [1, "seen", "predict", "1"]
