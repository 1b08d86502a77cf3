"""Scores of pairs of texts, in vLLM's shape."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from gateway.dialects.scoring.score import ScoreDialect
from gateway.errors import BadRequest, InvalidOutput

from .values import answered

ASK = {"text_1": "a", "text_2": ["b", "c"]}


@pytest.mark.parametrize(
    "value",
    [
        [0.5, -2.0],
        numpy.array([0.5, -2.0], dtype="float32"),
        numpy.array([[0.5], [-2.0]]),
        {"scores": [0.5, -2.0]},
        {"data": [{"index": 1, "score": -2.0}, {"index": 0, "score": 0.5}], "usage": {"prompt_tokens": 4}},
        [{"score": 0.5}, {"score": -2.0}],
    ],
)
def test_every_documented_shape_is_the_same_answer(value: Any) -> None:
    body, _ = answered(ScoreDialect(), ASK, value)
    assert body["data"] == [
        {"index": 0, "object": "score", "score": 0.5},
        {"index": 1, "object": "score", "score": -2.0},
    ]
    assert (body["object"], body["model"], body["created"]) == ("list", "m", 1795290277)
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] == 4


@pytest.mark.parametrize("value", [0.9, [0.9], numpy.float32(0.9), {"score": 0.9}])
def test_one_number_is_enough_for_one_pair(value: Any) -> None:
    body, _ = answered(ScoreDialect(), {"text_1": "a", "text_2": "b"}, value)
    assert [item["score"] for item in body["data"]] == [pytest.approx(0.9)]


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        ("a", "b", [("a", "b")]),
        ("a", ["b", "c"], [("a", "b"), ("a", "c")]),
        (["a"], ["b", "c"], [("a", "b"), ("a", "c")]),
        (["a", "b"], ["c", "d"], [("a", "c"), ("b", "d")]),
    ],
)
def test_the_method_gets_two_lists_of_equal_length(first: Any, second: Any, pairs: Any) -> None:
    inputs = ScoreDialect().read({"text_1": first, "text_2": second}, "score").inputs
    assert list(zip(inputs["text_1"], inputs["text_2"], strict=True)) == pairs


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"text_1": None}, "text_1", "missing_required_parameter"),
        ({"text_2": None}, "text_2", "missing_required_parameter"),
        ({"text_2": 5}, "text_2", "invalid_type"),
        ({"text_2": ["a", 5]}, "text_2", "invalid_type"),
        ({"text_2": []}, "text_2", "invalid_value"),
        ({"text_1": ["a", "b", "c"]}, "text_1", "invalid_value"),
    ],
)
def test_a_request_that_makes_no_sense_names_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ScoreDialect().read({**ASK, **fields}, "score")
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    "value",
    [None, 0.5, [0.5], [0.5, 1.0, 2.0], "x", {}, [0.5, float("nan")], numpy.zeros((2, 2)), [{"score": "a"}] * 2],
)
def test_what_are_no_two_scores_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        answered(ScoreDialect(), ASK, value)
