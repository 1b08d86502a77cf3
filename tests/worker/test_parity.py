"""Truss's rules to the letter, beside the improved ones that every other model has."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import json
import uuid
from dataclasses import dataclass
from typing import Any

import fastapi
import msgpack
import numpy
import pytest
import starlette.exceptions
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from gateway import HTTPError
from gateway.worker.bodies.failures import GENERIC, BadInput, Unhandled
from gateway.worker.bodies.rules import IMPROVED, Strict, rules_of
from gateway.worker.bodies.truss import BINARY, JSON
from gateway.worker.loading.descriptor import Descriptor, Method, ModelDefinitionError, describe

STRICT = Strict()
ENDPOINTS = frozenset({"chat_completions", "embeddings"})


class In(BaseModel):
    a: int


class Other(BaseModel):
    b: int


@dataclass
class Point:
    x: int


class Boom(Exception):
    pass


def strict(**methods: Any) -> Descriptor:
    return describe(type("Model", (), methods)(), ENDPOINTS, strict=True)


def method(input_type: type | None = None) -> Method:
    return Method("predict", print, "sync", "inputs", input_type)


def test_the_setting_chooses_the_rules() -> None:
    assert isinstance(rules_of("strict"), Strict)
    assert rules_of("improved") is IMPROVED


@pytest.mark.parametrize(
    ("body", "where", "text", "more"),
    [
        (b"", "`__root__`", "Expecting value: line 1 column 1 (char 0)", "; the body is empty"),
        (b"[]", "``", "Input should be a valid dictionary or instance of In", ""),
    ],
)
def test_a_body_that_is_wrong_as_a_whole_is_named_but_strict_parity_keeps_trusss_word(
    body: bytes, where: str, text: str, more: str
) -> None:
    for rules, expected in ((STRICT, f"{where}: {text}."), (IMPROVED, f"the body: {text}{more}.")):
        with pytest.raises(BadInput) as caught:
            rules.read(body, JSON, method(In))
        assert (caught.value.message, caught.value.param) == (f"Input Parsing Error:\n  {expected}", None)


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def untyped(self: Any, inputs: Any, request): ...  # type: ignore[no-untyped-def]
def named_by_string(self: Any, inputs: Any, request: Any) -> Any: ...
def one(self: Any, inputs: Any) -> Any: ...
def typed(self: Any, inputs: Any) -> Any: ...
def only_request(self: Any, request: Any) -> Any: ...


named_by_string.__annotations__["request"] = "Request"
typed.__annotations__.update(inputs=In, **{"return": Other})
only_request.__annotations__["request"] = Request


@pytest.mark.parametrize("function", [untyped, named_by_string])
def test_a_request_that_is_not_annotated_with_the_class_is_refused(function: Any) -> None:
    with pytest.raises(ModelDefinitionError, match=r"must have request as second argument \(type annotated\)"):
        strict(predict=function)


def test_a_class_without_predict_or_websocket_is_refused() -> None:
    with pytest.raises(ModelDefinitionError, match=r"^Truss model must have a `predict` or `websocket` method\.$"):
        strict(chat_completions=one)


def test_predict_types_every_method() -> None:
    found = strict(predict=typed, chat_completions=one).methods
    assert {name: one.input_type for name, one in found.items()} == {"predict": In, "chat_completions": In}


def test_preprocess_types_every_method_if_there_is_one() -> None:
    found = strict(preprocess=one, predict=typed, chat_completions=typed)
    assert [one.input_type for one in found.methods.values()] == [None, None]


def test_a_predict_that_takes_the_request_alone_has_no_body_read_for_anything() -> None:
    assert not strict(predict=only_request, chat_completions=one).methods["chat_completions"].parses


def test_the_body_is_read_for_a_method_that_takes_nothing() -> None:
    assert strict(predict=one, embeddings=lambda self: 1).methods["embeddings"].parses


def test_return_annotations_make_the_schema_only_when_they_are_types() -> None:
    assert strict(predict=typed).methods["predict"].returns is Other


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("body", [b"{", b""])
def test_json_that_is_malformed_is_the_clients_fault(body: bytes) -> None:
    with pytest.raises(BadInput, match=r"^Invalid JSON payload: "):
        STRICT.read(body, JSON, method())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'"\xff"', "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
        (b"[" * 100_000, "RecursionError: maximum recursion depth exceeded"),
        (b"1" * 5000, "ValueError: Exceeds the limit (4300 digits) for integer string conversion"),
    ],
)
def test_json_that_cannot_be_decoded_is_the_servers(body: bytes, words: str) -> None:
    with pytest.raises(Unhandled) as raised:
        STRICT.read(body, JSON, method())
    assert str(raised.value).startswith(words)
    with pytest.raises(BadInput):
        IMPROVED.read(body, JSON, method())


def test_what_truss_catches_for_types_and_msgpack_stays_the_clients_fault() -> None:
    for body, kind, of in ((b'"\xff"', JSON, In), (b"{}", JSON, In), (b"\x93\x01", BINARY, None)):
        with pytest.raises(BadInput):
            STRICT.read(body, kind, method(of))


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "value",
    [
        b"raw",
        {5},
        datetime.datetime(2026, 1, 2),
        decimal.Decimal(1),
        uuid.UUID(int=7),
        numpy.bool_(True),
        [In(a=1)],
        Point(1),
        iter([1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_does_not_know_truss_cannot_write(value: Any) -> None:
    name = type(value[0] if isinstance(value, list) else value).__name__
    with pytest.raises(Unhandled, match=f"^TypeError: Object of type {name} is not JSON serializable$"):
        STRICT.write(value, binary=False)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({5}, "TypeError: can not serialize 'set' object"),
        ([In(a=1)], "TypeError: can not serialize 'In' object"),
        (Point(1), "TypeError: can not serialize 'Point' object"),
        (datetime.time(3, tzinfo=datetime.UTC), "ValueError: Cannot represent timezone-aware times."),
        (2**70, "OverflowError: Integer value out of range"),
        (circle(), "ValueError: recursion limit exceeded."),
    ],
)
def test_what_msgpack_does_not_know_truss_cannot_write(value: Any, words: str) -> None:
    with pytest.raises(Unhandled) as raised:
        STRICT.write(value, binary=True)
    assert str(raised.value) == words


@pytest.mark.parametrize(
    "value", [{"a": [1, None]}, numpy.arange(2), [numpy.int64(1), numpy.float32(0.5)], In(a=1), "ä"]
)
@pytest.mark.parametrize("binary", [False, True])
def test_what_truss_can_write_is_written_as_ever(value: Any, binary: bool) -> None:
    assert STRICT.write(value, binary) == IMPROVED.write(value, binary)


def test_tags_of_binary_answers_are_the_same() -> None:
    for value in (datetime.datetime(2026, 1, 2), datetime.date(2026, 1, 2), decimal.Decimal(1), uuid.UUID(int=7), b"x"):
        assert STRICT.write(value, binary=True) == IMPROVED.write(value, binary=True)


def test_only_generators_and_responses_are_more_than_values() -> None:
    async def lazily() -> int:
        return 1

    for value in ((n for n in "ab"), Response(), {"a": 1}):
        STRICT.check(value, JSON)
    for value in (iter([1]), map(str, [1]), lazily()):
        with pytest.raises(Unhandled, match="is not JSON serializable"):
            STRICT.check(value, JSON)
    with pytest.raises(Unhandled, match=r"^TypeError: can not serialize 'list_iterator' object$"):
        STRICT.check(iter([1]), BINARY)


def test_items_are_texts_and_bytes_alone() -> None:
    assert [STRICT.chunk(item) for item in ("ä", b"\xff", memoryview(b"m"))] == ["ä".encode(), b"\xff", b"m"]
    for item in (1, {"a": 1}, None, bytearray(b"x"), "\ud800", numpy.arange(1)):
        with pytest.raises(Unhandled):
            STRICT.chunk(item)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "error", [Boom("x"), HTTPError(400, "ours"), starlette.exceptions.HTTPException(422), asyncio.CancelledError()]
)
def test_an_exception_that_is_not_fastapis_is_generic(error: BaseException) -> None:
    failure = STRICT.failure(error, "call", False)
    assert failure is not None
    assert (failure.status, failure.message, failure.truss_code) == (500, GENERIC, 600)


def test_fastapis_exception_passes_without_its_headers() -> None:
    failure = STRICT.failure(fastapi.HTTPException(409, {"a": 1}, {"X-Own": "yes"}), "call", False)
    assert failure is not None
    assert (failure.status, failure.detail, failure.truss_code, failure.headers) == (409, {"a": 1}, 600, [])


@pytest.mark.parametrize("detail", [7, 0])
def test_a_number_as_its_detail_makes_truss_stumble(detail: Any) -> None:
    failure = STRICT.failure(fastapi.HTTPException(422, detail), "call", False)
    assert failure is not None
    words = "Unhandled exception: TypeError: argument of type 'int' is not iterable"
    assert (failure.status, failure.message, failure.truss_code) == (500, words, 500)


def test_a_stream_that_fails_just_ends() -> None:
    assert STRICT.failure(Boom("x"), "stream", False) is None
    assert STRICT.failure(fastapi.HTTPException(409), "stream", False) is None


def test_a_collected_stream_that_fails_says_why() -> None:
    failure = STRICT.failure(Boom("mid"), "gather", False)
    assert failure is not None
    assert (failure.status, failure.message, failure.truss_code) == (500, "Unhandled exception: Boom: mid", 500)
    for error in (fastapi.HTTPException(409, "not now"), starlette.exceptions.HTTPException(409, "not now")):
        raised = STRICT.failure(error, "gather", False)
        assert raised is not None
        assert (raised.status, raised.detail) == (409, "not now")


def test_the_improved_rules_keep_what_a_model_says_to_themselves() -> None:
    for stage in ("call", "stream", "gather", "tail"):
        failure = IMPROVED.failure(Boom("secret"), stage, False)  # type: ignore[arg-type]
        assert failure is not None
        assert "secret" not in failure.message


def test_json_is_pythons_own_either_way() -> None:
    value = {"a": [1, 2.5, None], "ü": float("nan")}
    assert STRICT.write(value, False) == (json.dumps(value).encode(), JSON)
    assert STRICT.write(value, True) == (msgpack.packb(value), BINARY)
