"""A class that classifies answers questions whose options are its labels, and refuses others with the labels."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BadRequest, InvalidOutput
from gateway.spec import ModelSpec
from gateway.worker.loading.derived_methods import derive
from gateway.worker.loading.descriptor import describe

pytestmark = pytest.mark.anyio
PREDICATE = {"type": "predicate", "instructions": "The author liked it."}
FORMS: dict[str, Any] = {
    "dict": {"Positive": 0.75, "negative": 0.25},
    "pipeline": [{"label": "Positive", "score": 0.75}, {"label": "negative", "score": 0.25}],
    "one of a list": [{"Positive": 0.75, "negative": 0.25}],
    "one pipeline of a list": [[{"label": "negative", "score": 0.25}, {"label": "Positive", "score": 0.75}]],
    "data": {"data": [{"Positive": 0.75, "negative": 0.25}], "usage": {"prompt_tokens": 3}},
}


def choice(*values: Any) -> dict[str, Any]:
    return {"type": "choice", "instructions": "?", "choices": [{"value": value} for value in values]}


async def decided(classified: Any, *questions: Any, is_async: bool = False, given: Any = "text") -> Any:
    class Sync:
        def classify(self, inputs: Any) -> Any:
            seen.append(inputs)
            return classified

    class Async:
        async def classify(self, inputs: Any) -> Any:
            seen.append(inputs)
            return classified

    seen: list[Any] = []
    model = Async() if is_async else Sync()
    spec = ModelSpec(name="m", target="", root=Path("/nowhere"))
    method = derive(model, describe(model, frozenset({"classify", "decide"})), spec).methods["decide"]
    assert method.needs_slot and method.derived
    value = method.function({"input": given, "questions": list(questions)})
    value = await value if inspect.isawaitable(value) else value
    assert seen == [{"input": ["text"]}]
    return value


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("form", FORMS)
async def test_whatever_form_the_labels_have_options_get_their_probabilities(form: str, is_async: bool) -> None:
    found = await decided(FORMS[form], choice("negative", "POSITIVE"), PREDICATE, is_async=is_async)
    assert found["answers"] == [[0.25, 0.75], 0.75]


async def test_true_and_false_are_labels_that_mean_it() -> None:
    found = await decided({"yes": 0.9, "no": 0.1}, choice(True, False))
    assert found["answers"] == [[0.9, 0.1]]


async def test_levels_are_labels() -> None:
    question = {"type": "score", "instructions": "?", "levels": [{"label": "1 star"}, {"label": "2 stars"}]}
    assert (await decided({"1 star": 0.2, "2 stars": 0.7, "3 stars": 0.1}, question))["answers"] == [[0.2, 0.7]]


async def test_instructions_that_are_a_label_ask_for_it() -> None:
    found = await decided({"spam": 0.2, "ham": 0.5, "news": 0.3}, {"type": "predicate", "instructions": " Spam "})
    assert found["answers"] == [0.2]


@pytest.mark.parametrize(
    ("question", "param"),
    [
        (choice("a", "c"), "questions[0].choices[1].value"),
        (choice(True, "a"), "questions[0].choices[0].value"),
        (
            {"type": "score", "instructions": "?", "levels": [{"label": "low"}, {"label": "a"}]},
            "questions[0].levels[0].label",
        ),
        (PREDICATE, "questions[0].instructions"),
    ],
    ids=["choice", "boolean", "score", "predicate"],
)
async def test_a_question_that_does_not_fit_is_refused_with_the_labels(question: Any, param: str) -> None:
    with pytest.raises(BadRequest, match=r"have: a, b") as refused:
        await decided({"a": 0.5, "b": 0.5}, question)
    assert refused.value.param == param


@pytest.mark.parametrize("value", [[0.5, 0.5], {"label": "x", "probs": [0.5, 0.5]}, "x", {"a": "much"}], ids=repr)
async def test_a_class_without_labels_cannot_answer(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        await decided(value, choice("a", "b"))


async def test_messages_are_classified_as_their_texts() -> None:
    given = [{"role": "user", "content": [{"type": "input_text", "text": "text"}]}]
    assert (await decided({"a": 0.5, "b": 0.5}, choice("a", "b"), given=given))["answers"] == [[0.5, 0.5]]


async def test_an_image_is_refused() -> None:
    given = [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]
    with pytest.raises(BadRequest) as refused:
        await decided({"a": 0.5}, choice("a", "b"), given=given)
    assert refused.value.param == "input[0]"


def test_a_class_with_its_own_decide_keeps_it() -> None:
    class Model:
        def classify(self, inputs: Any) -> Any:
            return {}

        def decide(self, inputs: Any) -> Any:
            return [None]

    model = Model()
    spec = ModelSpec(name="m", target="", root=Path("/nowhere"))
    method = derive(model, describe(model, frozenset({"classify", "decide"})), spec).methods["decide"]
    assert not method.derived and method.function({}) == [None]


def test_a_class_may_find_out_in_load_that_it_can_decide() -> None:
    class Model:
        def predict(self, inputs: Any) -> Any:
            return {}

        def load(self) -> None:
            self.decide = lambda inputs: [inputs["input"]]

    model = Model()
    described = describe(model, frozenset({"classify", "decide"}))
    spec = ModelSpec(name="m", target="", root=Path("/nowhere"))
    assert "decide" not in derive(model, described, spec).methods
    model.load()
    method = derive(model, described, spec).methods["decide"]
    assert not method.derived and method.function({"input": 5}) == [5]


async def test_options_without_any_probability_are_refused_in_the_answer() -> None:
    found = await decided({"a": 0.0, "b": 0.0, "c": 1.0}, choice("a", "b"), choice("a", "c"))
    assert found["answers"] == [None, [0.0, 1.0]]


async def test_labels_that_do_not_exclude_each_other_take_predicates() -> None:
    with pytest.raises(BadRequest, match="ask for each with a predicate") as refused:
        await decided({"a": 0.9, "b": 0.8}, choice("a", "b"))
    assert refused.value.param == "questions[0].choices"


async def test_labels_that_differ_in_case_alone_are_told_apart() -> None:
    found = await decided({"A": 0.25, "a": 0.75}, choice("a", "A"))
    assert found["answers"] == [[0.75, 0.25]]


def test_strict_parity_derives_nothing() -> None:
    class Model:
        def classify(self, inputs: Any) -> Any:
            return {}

    model = Model()
    spec = ModelSpec(name="m", target="", root=Path("/nowhere"), parity="strict")
    assert "decide" not in derive(model, describe(model, frozenset({"classify", "decide"})), spec).methods
