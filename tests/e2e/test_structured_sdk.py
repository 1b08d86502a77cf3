"""Answers of a certain form through the SDKs of OpenAI and Anthropic: the real command and language models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import openai
import pydantic
import pytest

from gateway.testing import Gateway

MODELS = ["tiny-chat", "smollm2"]  # on PyTorch and on llama.cpp
QUESTION: Any = [{"role": "user", "content": "Where shall we go, and for how many days?"}]


class Journey(pydantic.BaseModel):
    city: Literal["Oslo", "Rome", "Lima"]
    days: int = pydantic.Field(ge=1, le=30)


TOOL: Any = {
    "name": "book",
    "description": "Books a journey",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def sdk(demo: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="unused", max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture(scope="module")
def claude(demo: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=demo.url, api_key="unused", max_retries=0, timeout=120) as made:
        yield made


@pytest.mark.parametrize("model", MODELS)
def test_parse_of_chat_and_of_responses_gives_the_class_that_was_asked_for(sdk: openai.OpenAI, model: str) -> None:
    chat = sdk.chat.completions.parse(model=model, messages=QUESTION, response_format=Journey, max_tokens=200)
    assert isinstance(chat.choices[0].message.parsed, Journey)
    response = sdk.responses.parse(model=model, input=QUESTION, text_format=Journey, max_output_tokens=200)
    assert isinstance(response.output_parsed, Journey)


@pytest.mark.parametrize("model", MODELS)
def test_a_streamed_answer_obeys_its_schema_too(sdk: openai.OpenAI, model: str) -> None:
    with sdk.chat.completions.stream(model=model, messages=QUESTION, response_format=Journey, max_tokens=200) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Journey)


def test_a_forced_tool_gets_arguments_of_its_schema(sdk: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    given = TOOL["input_schema"]
    tool: Any = {"type": "function", "function": {"name": "book", "parameters": given, "strict": True}}
    chat = sdk.chat.completions.create(
        model=MODELS[0], messages=QUESTION, tools=[tool], tool_choice="required", max_tokens=200
    )
    (call,) = chat.choices[0].message.tool_calls or []
    assert fulfils(json.loads(call.function.arguments))
    message = claude.messages.create(
        model=MODELS[0], messages=QUESTION, max_tokens=200, tools=[TOOL], tool_choice={"type": "tool", "name": "book"}
    )
    (use,) = [block for block in message.content if block.type == "tool_use"]
    assert fulfils(use.input)


def fulfils(arguments: Any) -> bool:
    return arguments["city"] in ("Oslo", "Rome") and 1 <= arguments["days"] <= 9 and len(arguments) == 2


@pytest.mark.parametrize("model", MODELS)
def test_parse_of_messages_gives_the_class_that_was_asked_for(claude: anthropic.Anthropic, model: str) -> None:
    message = claude.messages.parse(model=model, messages=QUESTION, max_tokens=200, output_format=Journey)
    assert isinstance(message.parsed_output, Journey)


@pytest.mark.parametrize("model", MODELS)
def test_a_schema_that_cannot_be_enforced_is_refused_with_its_place(sdk: openai.OpenAI, model: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    form: Any = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}
    with pytest.raises(openai.BadRequestError, match="uniqueItems"):
        sdk.chat.completions.create(model=model, messages=QUESTION, response_format=form)
