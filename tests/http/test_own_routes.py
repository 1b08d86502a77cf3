"""Routes of a plugin: plain JSON, with a schema of their own, and what a broken dialect does to the others: nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel
from served import Model, Served

from gateway.dialects import plain_json
from gateway.dialects.base import Dialect
from gateway.errors import HTTPError
from gateway.hookspecs import hookimpl
from gateway.http.routes import dialects
from gateway.json_schemas import MOST_OF_A_CLASS, MOST_VALUES
from gateway.settings.schema import ModelSettings
from gateway.spec import Endpoint

Serve = Callable[..., Served]
PATH = "/v1/count"


class Text(BaseModel):
    text: str


class Count(BaseModel):
    words: int


SCHEMA = {
    "required": ["text"],
    "properties": {"text": {"type": "string"}},
    "example": {"text": "a b"},
}


def plugin(*endpoints: Endpoint, **dialects: Any) -> ModuleType:
    found = ModuleType("mine")

    def register_endpoints(register: Callable[[Endpoint], None]) -> None:
        for endpoint in endpoints:
            register(endpoint)

    def register_dialects(register: Callable[[str, Any], None]) -> None:
        for name, dialect in dialects.items():
            register(name, dialect)

    vars(found).update(register_endpoints=hookimpl(register_endpoints), register_dialects=hookimpl(register_dialects))
    return found


def own(method: Callable[[Any], Any], **endpoint: Any) -> dict[str, Any]:
    return {
        "models": {"m": Model({"count": method})},
        "plugins": [plugin(Endpoint(PATH, "count", "json", **endpoint)), plain_json],
    }


def words(inputs: Any) -> Any:
    return {"words": len(inputs["text"].split())}


def test_a_value_is_answered_as_json(serve: Serve) -> None:
    served = serve(**own(words))
    for path in (PATH, f"/models/m{PATH}"):
        answer = served.post(path, {"text": "one two"})
        assert (answer.status, answer.headers["content-type"], answer.json) == (200, "application/json", {"words": 2})


@pytest.mark.parametrize("stream", [True, False, None])
def test_an_iterator_is_streamed_whatever_was_asked_for(serve: Serve, stream: bool | None) -> None:
    async def each(inputs: Any) -> Any:
        for word in inputs["text"].split():
            yield {"word": word}

    answer = serve(**own(each)).post(PATH, {"text": "one two", "stream": stream})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.body == b'data: {"word":"one"}\n\ndata: {"word":"two"}\n\n'


def test_a_stream_is_bounded_by_its_gaps_and_not_by_the_time_of_a_whole_answer(serve: Serve) -> None:
    go = asyncio.Event()

    async def each(inputs: Any) -> Any:
        yield 1
        await go.wait()
        yield 2

    served = serve(**own(each))
    with served.busy("m", PATH, {}) as waiting:
        response = waiting.connection.getresponse()
        assert response.readline() == b"data: 1\n"
        (call,) = served.models["m"].calls
        assert served.do(lambda: (call.bound, call.deadline - served.loop.time() <= call.limits.gap_timeout)) == (
            float("inf"),
            True,
        )
        served.do(go.set)
        assert response.read() == b"\ndata: 2\n\n"


def test_what_the_method_refuses_has_its_status_and_a_stream_that_breaks_ends_with_an_error(serve: Serve) -> None:
    async def each(inputs: Any) -> Any:
        if "text" not in inputs:
            raise HTTPError(422, "no text", param="text")
        yield 1
        raise HTTPError(400, "no more")

    served = serve(**own(each))
    refused = served.post(PATH, {})
    assert (refused.status, refused.error["param"], refused.error["message"]) == (422, "text", "no text")
    first, error, rest = served.post(PATH, {"text": ""}).body.split(b"\n\n")
    assert (first, rest) == (b"data: 1", b"")
    assert json.loads(error.removeprefix(b"event: error\ndata: "))["error"]["message"] == "no more"


@pytest.mark.parametrize("schema", [SCHEMA, Text])
def test_a_body_that_does_not_fit_the_schema_never_reaches_the_model(serve: Serve, schema: Any) -> None:
    served = serve(**own(words, input_schema=schema))
    for body, param in (({"text": 1}, "text"), ({}, "text")):
        refused = served.post(PATH, body)
        assert (refused.status, refused.error["type"], refused.error["param"]) == (400, "invalid_request_error", param)
    assert served.models["m"].calls == []
    assert served.post(PATH, {"model": "m", "text": "a"}).json == {"words": 1}


def test_a_body_that_does_not_fit_loads_no_model(serve: Serve) -> None:
    given = own(words, input_schema=SCHEMA)
    given["models"]["m"].loads.append(None)
    served = serve(**given, tables={"m": ModelSettings(load="lazy")})
    assert served.post(PATH, {"text": 1}).status == 400
    assert served.hub.catalog.models["m"].state == "unloaded"
    assert served.post(PATH, {"text": "a"}).json == {"words": 1}


@pytest.mark.parametrize(
    ("schema", "most"),
    [({"properties": {"rows": {"items": {"type": "number"}}}}, MOST_VALUES), (Text, MOST_OF_A_CLASS)],
)
def test_a_body_that_is_checked_holds_a_bounded_number_of_values(serve: Serve, schema: Any, most: int) -> None:
    served = serve(**own(lambda inputs: len(inputs["rows"]), input_schema=schema))
    body = b'{"text": "", "rows": [%b1]}' % (b"1," * (most - 2))
    assert served.post(PATH, body).json == most - 1
    assert served.post(PATH, body.replace(b"[1,", b"[1,1,")).status == 413


@pytest.mark.parametrize("size", [10, 2 << 10])
def test_more_than_a_kilobyte_is_checked_in_a_thread(serve: Serve, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr(dialects, "checker", lambda schema: lambda body: found.append(threading.current_thread().name))
    served = serve(**own(words, input_schema=SCHEMA))
    assert served.post(PATH, {"text": "a" * size}).status == 200
    assert found[0].startswith("light") is (size > dialects.CHECKED)


@pytest.mark.parametrize(("taken", "given"), [(SCHEMA, {"type": "object", "title": "Count"}), (Text, Count)])
def test_the_schemas_are_in_the_api_document(serve: Serve, taken: Any, given: Any) -> None:
    document = serve(**own(words, input_schema=taken, output_schema=given)).get("/openapi.json").json
    for path in (PATH, f"/models/{{model}}{PATH}"):
        shown = document["paths"][path]["post"]
        body = shown["requestBody"]["content"]["application/json"]
        assert body["schema"]["properties"]["text"]["type"] == "string"
        answers = shown["responses"]["200"]["content"]
        assert set(answers) == {"application/json", "text/event-stream"}
        name = answers["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert document["components"]["schemas"][name]["title"] == "Count"
        if taken is SCHEMA:
            assert body["example"]["text"] == "a b"


class Raising(Dialect):
    @property
    def request_schema(self) -> dict[str, Any]:  # type: ignore[override]
        raise RuntimeError("no schema today")

    @property
    def ping(self) -> bytes:  # type: ignore[override]
        raise RuntimeError("no ping today")


class Bare:
    """A dialect without a schema, which extends nothing."""

    def read(self, body: Any, method: str) -> Any:
        raise HTTPError(418, "not today")

    def encoder(self, prepared: Any, context: Any) -> Any: ...


@pytest.mark.parametrize("broken", [Raising(), Bare(), type("Odd", (Dialect,), {"response_schema": object()})()])
def test_a_broken_dialect_breaks_only_itself(serve: Serve, broken: Any) -> None:
    asked = own(words)
    asked["plugins"].insert(0, plugin(Endpoint("/v1/broken", "count", "broken"), broken=broken))
    asked["plugins"][0].__name__ = "broken"
    served = serve(**asked)
    assert served.post("/v1/broken", {"text": "a"}).status in (418, 500)
    assert served.post(PATH, {"text": "a"}).json == {"words": 1}
    paths = served.get("/openapi.json").json["paths"]
    assert {PATH, "/v1/broken", "/v1/chat/completions"} <= set(paths)
