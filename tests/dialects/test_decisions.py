"""Decisions: questions are read strictly, and what a method returns becomes probabilities that are some."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Decision

from gateway.dialects.base import Context
from gateway.dialects.openai.decisions import DecisionsDialect
from gateway.errors import BadRequest, InvalidOutput

PREDICATE = {"type": "predicate", "instructions": "It is good."}
CHOICE = {"type": "choice", "instructions": "Which?", "choices": [{"value": "a"}, {"value": "b"}, {"value": True}]}
SCORE = {"type": "score", "instructions": "How?", "levels": [{"label": "low"}, {"label": "mid"}, {"label": "high"}]}
CONTEXT = Context("m", "0" * 32, 0)


def read(**body: Any) -> Any:
    return DecisionsDialect().read({"input": "text", "questions": [PREDICATE], **body}, "decide")


def answers(value: Any, *questions: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
    dialect = DecisionsDialect()
    encoder = dialect.encoder(read(questions=list(questions), **body), CONTEXT)
    encoder.feed([value])
    answer = json.loads(encoder.whole()[0])
    Decision.model_validate(answer, strict=True)
    return list(answer["answers"])


def test_a_predicate_has_a_probability_and_its_name() -> None:
    assert answers([0.25], {**PREDICATE, "name": "good"}) == [
        {"type": "predicate", "name": "good", "probability": 0.25}
    ]


@pytest.mark.parametrize("value", [[[0.2, 0.5, 0.3]], [{"a": 0.2, "b": 0.5, "true": 0.3}]], ids=["list", "dict"])
def test_a_choice_has_the_best_option_and_all_probabilities(value: Any) -> None:
    assert answers(value, CHOICE) == [
        {
            "type": "choice",
            "name": None,
            "choice": "b",
            "confidence": 0.5,
            "probabilities": [
                {"value": "a", "probability": 0.2},
                {"value": "b", "probability": 0.5},
                {"value": True, "probability": 0.3},
            ],
        }
    ]


def test_a_score_is_the_mean_of_its_levels() -> None:
    (found,) = answers([{"low": 0.25, "high": 0.75}], SCORE)
    assert found["score"] == 1.5 and found["confidence"] == 0.75
    assert [(each["label"], each["value"], each["probability"]) for each in found["probabilities"]] == [
        ("low", 0, 0.25),
        ("mid", 1, 0.0),
        ("high", 2, 0.75),
    ]


def test_options_share_what_the_model_gave_them_and_confidence_knows_of_the_rest() -> None:
    (found,) = answers([[0.3, 0.1, 0.0]], CHOICE)
    assert [each["probability"] for each in found["probabilities"]] == pytest.approx([0.75, 0.25, 0.0])
    assert found["confidence"] == pytest.approx(0.3)


def test_none_is_a_refusal_of_one_question_only() -> None:
    assert answers([None, 0.5], {**CHOICE, "name": "x"}, PREDICATE) == [
        {"type": "refusal", "name": "x"},
        {"type": "predicate", "name": None, "probability": 0.5},
    ]


@pytest.mark.parametrize("value", [0.5, [0.5], {"answers": [0.5], "usage": {"prompt_tokens": 7}}], ids=repr)
def test_the_answer_to_one_question_may_come_alone_or_with_usage(value: Any) -> None:
    assert answers(value, PREDICATE)[0]["probability"] == 0.5


def test_the_models_own_count_of_tokens_is_used() -> None:
    encoder = DecisionsDialect().encoder(read(), CONTEXT)
    encoder.feed([{"answers": [0.5], "usage": {"prompt_tokens": 7}}])
    body, headers = encoder.whole()
    assert json.loads(body)["usage"]["total_tokens"] == 7 and headers == []


@pytest.mark.parametrize(
    ("value", "question", "what"),
    [
        ([0.5, 0.5], PREDICATE, "2 answers for 1 question"),
        ([1.5], PREDICATE, "no probability"),
        ([-0.1], PREDICATE, "no probability"),
        (["x"], PREDICATE, "a probability"),
        ([True], PREDICATE, "a probability"),
        ([math.nan], PREDICATE, "NaN"),
        ([[0.5, 0.5]], CHOICE, "2 probabilities for 3 options"),
        ([[0.0, 0.0, 0.0]], CHOICE, "the sum 0"),
        ([[0.9, 0.9, 0.9]], CHOICE, "the sum 2.7"),
        ([[1.5, -0.5, 0.0]], CHOICE, "each must be 0 or more"),
        ([{"c": 1.0}], CHOICE, "none of the options"),
        (["x"], CHOICE, "probabilities of the options"),
        ("x", PREDICATE, "a probability"),
    ],
    ids=repr,
)
def test_what_are_no_probabilities_is_an_error_of_the_model(value: Any, question: dict[str, Any], what: str) -> None:
    with pytest.raises((InvalidOutput, ValueError), match=what):
        answers(value, question)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda masses: sum(masses) > 1e-6))
def test_probabilities_sum_to_one_and_the_confidence_is_that_of_the_best(masses: list[float]) -> None:
    total = sum(masses)
    masses = [each / max(total, 1.0) for each in masses]
    (found,) = answers([masses], CHOICE)
    probabilities = [each["probability"] for each in found["probabilities"]]
    assert sum(probabilities) == pytest.approx(1)
    assert found["confidence"] <= max(probabilities) + 1e-9
    assert found["choice"] == ["a", "b", True][probabilities.index(max(probabilities))]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"input": []}, "input"),
        ({"input": ["text"]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [3]}]}, "input[0].content"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"questions": None}, "questions"),
        ({"questions": []}, "questions"),
        ({"questions": [PREDICATE] * 401}, "questions"),
        ({"questions": {}}, "questions"),
        ({"questions": ["x"]}, "questions[0]"),
        ({"questions": [PREDICATE, {"type": "noul", "instructions": "x"}]}, "questions[1].type"),
        ({"questions": [{"type": "predicate"}]}, "questions[0].instructions"),
        ({"questions": [{**PREDICATE, "name": 3}]}, "questions[0].name"),
        ({"questions": [{**PREDICATE, "choices": CHOICE["choices"]}]}, "questions[0].choices"),
        ({"questions": [{**CHOICE, "choices": [{"value": "a"}]}]}, "questions[0].choices"),
        ({"questions": [{**CHOICE, "choices": [{"value": "a"}] * 2}]}, "questions[0].choices[1].value"),
        ({"questions": [{**CHOICE, "choices": [{"value": "a"}, {"value": 1}]}]}, "questions[0].choices[1].value"),
        ({"questions": [{**SCORE, "levels": [{"label": "a"}, {"label": True}]}]}, "questions[0].levels[1].label"),
        (
            {"questions": [{**SCORE, "levels": [{"label": "a"}, {"label": "b", "x": 1}]}]},
            "questions[0].levels[1].x",
        ),
        ({"questions": [{**SCORE, "levels": [{"value": str(i)} for i in range(256)]}]}, "questions[0].levels"),
    ],
    ids=repr,
)
def test_a_malformed_request_is_refused_and_its_field_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(**body)
    assert refused.value.param == param


def test_true_and_the_word_are_different_options() -> None:
    question = {**CHOICE, "choices": [{"value": "true"}, {"value": True}]}
    assert answers([[0.1, 0.9]], question)[0]["choice"] is True
