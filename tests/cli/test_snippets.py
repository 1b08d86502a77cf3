from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from gateway.cli.snippets import example


class Inner(BaseModel):
    kind: str = Field(examples=["cat"])


class Input(BaseModel):
    text: str
    count: int
    inner: Inner
    many: list[float]
    maybe: int | None
    top: int = 3


def test_an_example_satisfies_the_schema_it_is_made_from() -> None:
    value = example(Input.model_json_schema())
    assert value == {"text": "Hello.", "count": 1, "inner": {"kind": "cat"}, "many": [1.0], "maybe": 1}
    Input.model_validate(value)


@pytest.mark.parametrize("schema", [{}, None, True, {"$ref": "#/$defs/Missing"}, {"type": "strange"}])
def test_a_schema_that_says_little_gives_an_empty_object(schema: Any) -> None:
    assert example(schema) == {}
