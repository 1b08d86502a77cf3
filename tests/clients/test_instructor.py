"""instructor: objects out of answers, by a forced tool, by JSON, and by JSON of a schema."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import instructor
import openai
import pydantic
import pytest
from instructor.core.exceptions import InstructorRetryException

from .asking import PATIENCE, script, steps, user


class Weather(pydantic.BaseModel):
    city: str
    degrees: int

    @pydantic.field_validator("degrees")
    @classmethod
    def possible(cls, value: int) -> int:
        if value > 60:
            raise ValueError("no place is that hot")
        return value


OSLO = Weather(city="Oslo", degrees=-3)
MODES = {
    instructor.Mode.TOOLS: {"tool_calls": [{"name": "Weather", "arguments": OSLO.model_dump()}]},
    instructor.Mode.JSON: OSLO.model_dump_json(),
    instructor.Mode.JSON_SCHEMA: OSLO.model_dump_json(),
}
OF_EACH_MODE = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)


@OF_EACH_MODE
def test_an_answer_is_an_object(client: openai.OpenAI, mode: instructor.Mode) -> None:
    asking = instructor.from_openai(client, mode=mode)
    found, raw = asking.chat.completions.create_with_completion(
        model="script", messages=script(MODES[mode]), response_model=Weather
    )
    assert isinstance(found, Weather) and found.model_dump() == OSLO.model_dump() and raw.usage.total_tokens > 0


@OF_EACH_MODE
def test_an_object_grows_while_it_is_streamed(client: openai.OpenAI, mode: instructor.Mode) -> None:
    asking = instructor.from_openai(client, mode=mode)
    text = OSLO.model_dump_json()
    pieces: list[Any] = [text[:10], text[10:]]
    if mode is instructor.Mode.TOOLS:
        pieces = [{"tool_calls": [{"index": 0, "arguments": piece}]} for piece in pieces]
        pieces[0]["tool_calls"][0]["name"] = "Weather"
    grown = list(
        asking.chat.completions.create_partial(model="script", messages=script(*pieces), response_model=Weather)
    )
    assert len(grown) > 1 and grown[-1].model_dump() == OSLO.model_dump()


@OF_EACH_MODE
def test_an_async_client_gets_an_object(url: str, key: str, mode: instructor.Mode) -> None:
    async def run() -> Weather:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, timeout=PATIENCE) as client:
            asking = instructor.from_openai(client, mode=mode)
            found: Weather = await asking.chat.completions.create(
                model="script", messages=script(MODES[mode]), response_model=Weather
            )
            return found

    assert asyncio.run(run()).model_dump() == OSLO.model_dump()


def test_the_model_is_told_what_is_wanted(client: openai.OpenAI) -> None:
    class Anything(pydantic.RootModel[dict[str, Any]]):
        pass

    asking = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
    seen = asking.chat.completions.create(
        model="script", messages=script(["show", "response_format"]), response_model=Anything
    )
    assert seen.root["response_format"]["type"] == "json_schema"


def test_an_object_that_cannot_be_is_asked_for_again(client: openai.OpenAI) -> None:
    hot = json.dumps({"city": "Oslo", "degrees": 100})
    asking = instructor.from_openai(client, mode=instructor.Mode.JSON)
    with pytest.raises(InstructorRetryException, match="no place is that hot"):
        asking.chat.completions.create(model="script", messages=user(steps(hot)), response_model=Weather, max_retries=2)


@pytest.mark.parametrize("mode", [instructor.Mode.ANTHROPIC_TOOLS, instructor.Mode.ANTHROPIC_JSON])
def test_an_answer_by_messages_is_an_object(claude: anthropic.Anthropic, mode: instructor.Mode) -> None:
    answer = MODES[instructor.Mode.TOOLS if mode is instructor.Mode.ANTHROPIC_TOOLS else instructor.Mode.JSON]
    found = instructor.from_anthropic(claude, mode=mode).messages.create(
        model="script", max_tokens=100, messages=script(answer), response_model=Weather
    )
    assert found.model_dump() == OSLO.model_dump()


def test_an_answer_by_responses_is_an_object(client: openai.OpenAI) -> None:
    asking = instructor.from_openai(client, mode=instructor.Mode.RESPONSES_TOOLS)
    found = asking.responses.create(model="script", input=steps(MODES[instructor.Mode.TOOLS]), response_model=Weather)
    assert found.model_dump() == OSLO.model_dump()
