"""Classes of texts, in vLLM's shape."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from gateway.dialects.scoring.classify import ClassifyDialect
from gateway.errors import BadRequest, InvalidOutput

from .values import answered

TWO = {"input": ["fine", "bad"]}
EXPECTED = [("good", [0.9, 0.1]), ("bad", [0.2, 0.8])]


def classes(value: Any, **ask: Any) -> list[tuple[str | None, list[float]]]:
    body, _ = answered(ClassifyDialect(), ask or TWO, value)
    assert [item["index"] for item in body["data"]] == list(range(len(body["data"])))
    assert all(item["num_classes"] == len(item["probs"]) for item in body["data"])
    return [(item["label"], item["probs"]) for item in body["data"]]


@pytest.mark.parametrize(
    "value",
    [
        [{"good": 0.9, "bad": 0.1}, {"good": 0.2, "bad": 0.8}],
        [{"label": "good", "probs": [0.9, 0.1]}, {"label": "bad", "probs": numpy.array([0.2, 0.8], dtype="float32")}],
        [
            [{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}],
            [{"label": "good", "score": 0.2}, {"label": "bad", "score": 0.8}],
        ],
        {
            "data": [
                {"index": 0, "label": "good", "probs": [0.9, 0.1]},
                {"index": 1, "label": "bad", "probs": [0.2, 0.8]},
            ]
        },
    ],
)
def test_every_documented_shape_is_the_same_answer(value: Any) -> None:
    assert classes(value) == EXPECTED


def test_probabilities_alone_have_no_label() -> None:
    for value in ([[0.9, 0.1], [0.2, 0.8]], numpy.array([[0.9, 0.1], [0.2, 0.8]], dtype="float32")):
        assert classes(value) == [(None, [0.9, 0.1]), (None, [0.2, 0.8])]


def test_a_pipeline_that_tells_the_best_class_only_is_taken_at_its_word() -> None:
    assert classes([{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.8}]) == [
        ("good", [0.9]),
        ("bad", [0.8]),
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"good": 0.9, "bad": 0.1},
        [{"good": 0.9, "bad": 0.1}],
        {"label": "good", "probs": [0.9, 0.1]},
        [{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}],
        [[{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}]],
    ],
)
def test_a_single_text_needs_no_list(value: Any) -> None:
    assert classes(value, input="fine") == EXPECTED[:1]


@pytest.mark.parametrize("value", [[0.9, 0.1], numpy.array([0.9, 0.1], dtype="float32"), [[0.9, 0.1]]])
def test_a_single_row_is_the_answer_for_a_single_text(value: Any) -> None:
    assert classes(value, input="fine") == [(None, [0.9, 0.1])]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "good",
        {},
        [],
        [{"good": 0.9}],
        [0.9, 0.1],
        [{"good": "very"}, {"good": 0.1}],
        [{"label": "good"}, {"label": "bad"}],
        [[0.9, float("nan")], [0.1, 0.9]],
        [[], []],
        [{}, {}],
        numpy.zeros((2, 2, 2)),
    ],
)
def test_what_are_no_classes_of_two_texts_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        classes(value)


@pytest.mark.parametrize("value", [None, 5, [], ["a", 5], {"text": "a"}])
def test_an_input_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        ClassifyDialect().read({"input": value}, "classify")
    assert caught.value.param == "input"
