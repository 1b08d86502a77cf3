"""What a worker tells of its model: never more than the gateway takes, and never nothing."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from gateway.spec import Capabilities, MethodInfo
from gateway.wire import frames
from gateway.wire.plain import to_capabilities
from gateway.wire.values import decode_weighed
from gateway.worker.loading.load_report import encoded


class Large(BaseModel):
    x: int = Field(multiple_of=3, ge=10**320)


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"items": value}
    return value


METHODS = (MethodInfo(name="predict", kind="sync"),)


@pytest.mark.parametrize(
    "schema",
    [
        Large.model_json_schema(),
        {"const": "\ud800"},
        {5: {}},
        deep(100),
        deep(5000),
        {"title": "x" * frames.MAX_FRAME},
        {"default": type("Odd", (), {"keys": None})()},
    ],
    ids=["a large number", "half a letter", "a number as a key", "deep", "very deep", "long", "no dict"],
)
def test_a_schema_that_cannot_be_told_is_left_out_and_its_model_serves(
    schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    payload = encoded(Capabilities(methods=METHODS, input_schema=schema, max_model_len=7))
    assert len(payload) <= frames.MAX_FRAME
    found = to_capabilities(decode_weighed(payload))
    assert (found.methods, found.input_schema, found.max_model_len) == (METHODS, None, 7)
    assert "the schemas of predict are not reported" in "".join(capsys.readouterr())


def test_a_question_about_the_class_that_cannot_be_told_is_left_out_and_its_model_serves() -> None:
    payload = encoded(Capabilities(methods=METHODS, asked={"chat_completions": "a\nb"}, max_model_len=7))
    found = to_capabilities(decode_weighed(payload))
    assert (found.methods, found.asked, found.max_model_len) == (METHODS, {}, 7)
