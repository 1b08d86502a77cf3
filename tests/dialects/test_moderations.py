"""Moderations, judged by the official SDK."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from openai.types import ModerationCreateResponse

from gateway.dialects.openai.moderations import CATEGORIES, ModerationsDialect
from gateway.errors import BadRequest, InvalidOutput

from .values import answered


def moderated(value: Any, asked: Any = "text") -> ModerationCreateResponse:
    body, headers = answered(ModerationsDialect(), {"input": asked}, value)
    assert headers == {}

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=json.dumps(body))

    transport = httpx2.Client(transport=httpx2.MockTransport(reply))
    with openai.OpenAI(base_url="http://test/v1", api_key="k", http_client=transport) as client:
        return client.moderations.create(model="m", input=asked)


@pytest.mark.parametrize(
    "value",
    [
        {"violence": 0.9, "hate": 0.1},
        [{"violence": 0.9, "hate": 0.1}],
        {"category_scores": {"violence": 0.9, "hate": 0.1}},
        {"results": [{"category_scores": {"violence": 0.9, "hate": 0.1}}]},
        {
            "results": [
                {"flagged": True, "categories": {"violence": True}, "category_scores": {"violence": 0.9, "hate": 0.1}}
            ]
        },
    ],
)
def test_every_documented_shape_is_the_same_result(value: Any) -> None:
    answer = moderated(value)
    (result,) = answer.results
    assert answer.id.startswith("modr-") and answer.model == "m"
    assert result.flagged and result.categories.violence and not result.categories.hate
    assert (result.category_scores.violence, result.category_scores.hate) == (0.9, 0.1)
    assert not result.categories.self_harm_intent and result.category_scores.sexual_minors == 0.0
    assert result.category_applied_input_types.violence == ["text"]


def test_a_bool_says_whether_it_is_flagged() -> None:
    assert [result.flagged for result in moderated([True, False], ["a", "b"]).results] == [True, False]
    assert moderated(True).results[0].flagged


def test_a_model_may_decide_for_itself_and_have_categories_of_its_own() -> None:
    (result,) = moderated({"flagged": False, "category_scores": {"violence": 0.9, "spam": 0.7}}).results
    assert not result.flagged and result.categories.violence
    assert result.categories.model_extra["spam"] is True


def test_every_category_of_openai_is_there() -> None:
    body, _ = answered(ModerationsDialect(), {"input": "a"}, False)
    assert set(body["results"][0]["categories"]) == set(body["results"][0]["category_scores"]) == set(CATEGORIES)


def test_parts_are_judged_together() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert ModerationsDialect().read({"input": parts}, "moderations").inputs["input"] == [parts]
    (result,) = moderated({"violence": 0.1}, parts).results
    assert result.category_applied_input_types.violence == ["text", "image"]


@pytest.mark.parametrize(
    "value",
    [None, "bad", 0.5, [], {"violence": "much"}, {"violence": float("nan")}, [True, True], {"categories": {"hate": 1}}],
)
def test_what_is_no_result_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        moderated(value)


@pytest.mark.parametrize("value", [None, 5, [], ["a", 5], [{"text": "a"}], [["a"]]])
def test_an_input_that_cannot_be_judged_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        ModerationsDialect().read({"input": value}, "moderations")
    assert caught.value.param == "input"
