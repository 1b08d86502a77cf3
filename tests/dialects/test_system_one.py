"""System One: named questions become those of decisions, and answers have the numbers of the library with this wire."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import Context
from gateway.dialects.system_one import SystemOneDialect
from gateway.errors import BadRequest, InvalidOutput

NOUL = {"type": "noul", "instructions": "It is good."}
CHOICE = {"type": "choice", "instructions": "Which?", "criteria": {"a": "the first", "b": None, "c": {"is": 3}}}
SCORE = {"type": "score", "instructions": "How?", "criteria": ["low", "mid", {"text": "high"}]}
SIDES = {**NOUL, "criteria": {"true": "It is praised.", "false": None}}
CONTEXT = Context("m", "0" * 32, 0)


def read(**body: Any) -> Any:
    return SystemOneDialect().read({"state": "text", "questions": {"it": NOUL}, **body}, "decide")


def encoder(questions: dict[str, Any], value: Any) -> Any:
    found = SystemOneDialect().encoder(read(questions=questions), CONTEXT)
    found.feed([value])
    return found


def answers(questions: dict[str, Any], value: Any) -> dict[str, Any]:
    answer = json.loads(encoder(questions, value).whole()[0])
    assert list(answer) == ["model", "answers", "usage"] and list(answer["usage"]) == ["input_tokens", "output_tokens"]
    return dict(answer["answers"])


def test_questions_become_those_of_decisions() -> None:
    asked = read(questions={"good": NOUL, "side": SIDES, "which": CHOICE, "how": SCORE}).inputs
    assert asked["input"] == "text"
    assert asked["questions"] == [
        {"type": "predicate", "name": "good", "instructions": "It is good."},
        {
            "type": "choice",
            "name": "side",
            "instructions": "It is good.",
            "choices": [{"value": True, "description": "It is praised."}, {"value": False}],
        },
        {
            "type": "choice",
            "name": "which",
            "instructions": "Which?",
            "choices": [
                {"value": "a", "description": "the first"},
                {"value": "b"},
                {"value": "c", "description": '{"is":3}'},
            ],
        },
        {
            "type": "score",
            "name": "how",
            "instructions": "How?",
            "levels": [{"label": "low"}, {"label": "mid"}, {"label": '{"text":"high"}'}],
        },
    ]


@pytest.mark.parametrize("state", [{"width": 5.1}, [1, "ä"]], ids=repr)
def test_a_state_that_is_json_is_its_text(state: Any) -> None:
    assert json.loads(read(state=state).inputs["input"]) == state


def test_answers_have_the_numbers_of_the_library() -> None:
    decision = pytest.importorskip("transformers.decision.template_utils")
    config = pytest.importorskip("transformers.decision").DecisionConfig()
    chance = random.Random(0)
    for _ in range(200):
        kind, count = chance.choice([("noul", 2), ("choice", chance.randint(2, 26)), ("score", chance.randint(2, 26))])
        question: dict[str, Any] = {"type": kind, "instructions": "Which?"}
        if kind == "choice":
            question["criteria"] = {f"option {index}": None for index in range(count)}
        elif kind == "score":
            question["criteria"] = [f"level {index}" for index in range(count)]
        masses = [chance.choice([0, chance.random(), 1]) + 1e-9 for _ in range(count)]
        masses = [each / sum(masses) for each in masses]
        wanted = decision.Question.from_request("it", question, config).answer(masses)
        found = answers({"it": question}, [masses[0] if kind == "noul" else masses])["it"]
        assert list(found) == list(wanted)
        for key, each in wanted.items():
            assert found[key] == (pytest.approx(each, abs=1e-9) if key != "legend" else each), (question, masses)


def test_a_statement_with_its_sides_is_the_probability_of_true() -> None:
    assert answers({"it": SIDES}, [{"true": 0.2, "false": 0.6}]) == {"it": {"type": "noul", "noul": 0.25}}


def test_a_question_that_a_model_does_not_answer_says_so_and_others_are_answered() -> None:
    found = answers({"a": CHOICE, "b": NOUL}, [None, 0.5])
    assert found == {"a": {"type": "refusal"}, "b": {"type": "noul", "noul": 0.5}}


def test_names_keep_their_order_and_the_models_own_count_of_tokens_is_used() -> None:
    made = encoder({"z": NOUL, "a": NOUL}, {"answers": [0.1, 0.9], "usage": {"prompt_tokens": 7}})
    body, headers = made.whole()
    assert list(json.loads(body)["answers"]) == ["z", "a"] and headers == []
    assert json.loads(body)["usage"] == {"input_tokens": 7, "output_tokens": 0}


@pytest.mark.parametrize("value", [[0.5, 0.5], [1.5], ["x"], [math.nan], "x"], ids=repr)
def test_what_are_no_probabilities_is_an_error_of_the_model(value: Any) -> None:
    with pytest.raises((InvalidOutput, ValueError)):
        answers({"it": NOUL}, value)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"state": None}, "state"),
        ({"state": 3}, "state"),
        ({"state": True}, "state"),
        ({"model": 3}, "model"),
        ({"questions": None}, "questions"),
        ({"questions": []}, "questions"),
        ({"questions": {}}, "questions"),
        ({"questions": {str(number): NOUL for number in range(65)}}, "questions"),
        ({"questions": {"a": "x"}}, "questions.a"),
        ({"questions": {"a": {"instructions": "x"}}}, "questions.a.type"),
        ({"questions": {"a": {**NOUL, "type": "predicate"}}}, "questions.a.type"),
        ({"questions": {"a": {**NOUL, "type": ["noul"]}}}, "questions.a.type"),
        ({"questions": {"a": {**NOUL, "instructions": 3}}}, "questions.a.instructions"),
        ({"questions": {"a": {"type": "noul"}}}, "questions.a.instructions"),
        ({"questions": {"a": {**NOUL, "choices": []}}}, "questions.a.choices"),
        ({"questions": {"a": {**NOUL, "criteria": ["x"]}}}, "questions.a.criteria"),
        ({"questions": {"a": {**NOUL, "criteria": {"maybe": "x"}}}}, "questions.a.criteria.maybe"),
        ({"questions": {"a": {**NOUL, "criteria": {"true": 1}}}}, "questions.a.criteria.true"),
        ({"questions": {"a": {**CHOICE, "criteria": None}}}, "questions.a.criteria"),
        ({"questions": {"a": {**CHOICE, "criteria": ["a", "b"]}}}, "questions.a.criteria"),
        ({"questions": {"a": {**CHOICE, "criteria": {"a": None}}}}, "questions.a.criteria"),
        ({"questions": {"a": {**CHOICE, "criteria": dict.fromkeys(map(str, range(256)))}}}, "questions.a.criteria"),
        ({"questions": {"a": {**CHOICE, "criteria": {"a": 1, "b": None}}}}, "questions.a.criteria.a"),
        ({"questions": {"a": {**SCORE, "criteria": {"low": None, "high": None}}}}, "questions.a.criteria"),
        ({"questions": {"a": {**SCORE, "criteria": ["low"]}}}, "questions.a.criteria"),
        ({"questions": {"a": {**SCORE, "criteria": ["low", None]}}}, "questions.a.criteria[1]"),
        ({"questions": {"a": {**SCORE, "criteria": ["low", "low"]}}}, "questions.a.criteria"),
        ({"assets": {"<img>": {"url": "x"}}}, "assets"),
    ],
    ids=repr,
)
def test_a_malformed_request_is_refused_and_its_field_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(**body)
    assert refused.value.param == param and param.split(".")[-1] in refused.value.message


@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("questions[1].choices[0].value", "questions.which.criteria"),
        ("questions[1].instructions", "questions.which.instructions"),
        ("questions[7].choices", "questions[7].choices"),
        ("input", "state"),
        ("input[0]", "state"),
        ("other", "other"),
        (None, None),
    ],
    ids=repr,
)
def test_an_error_of_the_model_is_told_in_the_words_of_the_route(param: str | None, told: str | None) -> None:
    error = BadRequest("no", param=param)
    encoder({"it": NOUL, "which": CHOICE}, [0.5]).retell(error, 0)
    assert error.param == told


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "criteria", "instructions", "true", "a"]), inner, max_size=3)
    ),
)
near = st.fixed_dictionaries(
    {"type": st.sampled_from(["noul", "choice", "score"]) | anything},
    optional={"instructions": anything, "criteria": anything},
)


@given(
    st.fixed_dictionaries(
        {}, optional={"state": anything, "questions": st.dictionaries(st.text(max_size=3), near, max_size=3) | anything}
    )
)
def test_any_body_is_read_or_refused(body: dict[str, Any]) -> None:
    try:
        prepared = SystemOneDialect().read(body, "decide")
    except BadRequest as error:
        assert error.message and error.param is not None
    else:
        assert len(prepared.inputs["questions"]) == len(body["questions"])
