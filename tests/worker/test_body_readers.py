"""Methods of a class that read bodies of other content types than JSON and msgpack."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from gateway import BadRequest
from gateway.worker.bodies.rules import rules_of
from gateway.worker.loading.descriptor import ModelDefinitionError, describe

CSV = "text/csv"


class Typed(BaseModel):
    rows: list[list[str]]


class Model:
    body_readers = {CSV: "read_lines"}  # noqa: RUF012

    def read_lines(self, body: bytes, content_type: str) -> Any:
        if not body:
            raise BadRequest("no line")
        return [line.split(",") for line in body.decode().split()], content_type

    def predict(self, inputs: Any) -> Any:
        return inputs


class WithHooks(Model):
    def preprocess(self, inputs: Typed) -> Any:
        return inputs


def read(model: Any, body: bytes, content_type: str, parity: str = "improved") -> Any:
    found = describe(model, frozenset(), parity == "strict")
    return rules_of(parity).read(memoryview(body), content_type, found.pipeline_input)


@pytest.mark.parametrize("content_type", [CSV, "Text/CSV", "text/csv; charset=utf-8"])
@pytest.mark.parametrize("model", [Model(), WithHooks()], ids=["predict", "preprocess"])
def test_the_first_method_gets_what_the_reader_returns(model: Any, content_type: str) -> None:
    assert read(model, b"a,b\nc,d", content_type) == ([["a", "b"], ["c", "d"]], content_type)


def test_other_bodies_are_json_as_ever() -> None:
    assert read(Model(), b"[1]", "application/json") == [1]
    assert read(Model(), b"[1]", "") == [1]
    assert read(WithHooks(), b'{"rows": []}', "application/json") == Typed(rows=[])


def test_an_error_of_a_reader_is_the_error_of_the_call() -> None:
    with pytest.raises(BadRequest, match="no line"):
        read(Model(), b"", CSV)


def test_strict_parity_reads_json_as_truss_does() -> None:
    assert read(Model(), b"[1]", CSV, "strict") == [1]


@pytest.mark.parametrize(
    "given", ["text/csv", {CSV: "gone"}, {"csv": "read_lines"}, {"Text/CSV": "read_lines"}, {CSV: 1}]
)
def test_readers_that_cannot_be_called_are_told_at_the_load(given: Any) -> None:
    model = Model()
    model.body_readers = given
    with pytest.raises(ModelDefinitionError, match="must map content types, in lower case, to the names of methods"):
        describe(model, frozenset())
