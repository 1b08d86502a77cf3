"""pydantic-ai: agents by chat and by responses, with tools, answers in a form, and tokens counted beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from pydantic_ai import Agent
from pydantic_ai.direct import model_request_sync
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from .asking import ANSWER, QUESTION, REPORT, SUM, TINY, TOLD, TOTAL, WEATHER, steps

Make = Callable[[str], Any]
GREEDY: Any = {"temperature": 0}


class Report(pydantic.BaseModel):
    city: str
    degrees: int


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel])
def make(request: pytest.FixtureRequest, url: str, key: str) -> Make:
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key=key)
    return lambda name: request.param(name, provider=provider)


def test_an_agent_goes_on_from_what_was_said(make: Make) -> None:
    agent = Agent(make(TINY), model_settings=GREEDY)
    first = agent.run_sync(QUESTION)
    second = agent.run_sync(SUM, message_history=first.all_messages())
    assert (first.output, second.output) == (ANSWER, TOTAL) and second.usage.output_tokens > 0


def test_an_agent_calls_a_tool_and_tells_its_result(make: Make) -> None:
    agent = Agent(make(TINY), model_settings=GREEDY)

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Tells the weather in a city."""
        assert city == "Riga"
        return REPORT

    assert agent.run_sync(WEATHER).output == TOLD


def test_an_answer_is_streamed(make: Make) -> None:
    async def run() -> list[str]:
        async with Agent(make(TINY), model_settings=GREEDY).run_stream(QUESTION) as stream:
            return [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]

    assert "".join(asyncio.run(run())) == ANSWER


def test_an_answer_in_a_form_is_an_object(make: Make) -> None:
    call = {"tool_calls": [{"name": "final_result", "arguments": {"city": "Riga", "degrees": 7}}]}
    assert Agent(make("script"), output_type=Report).run_sync(steps(call)).output == Report(city="Riga", degrees=7)


@pytest.mark.parametrize("name", [TINY, "shout"])
def test_tokens_are_counted_before_the_request_is_made(url: str, key: str, name: str) -> None:
    model = OpenAIResponsesModel(name, provider=OpenAIProvider(base_url=f"{url}/v1", api_key=key))
    messages: list[Any] = [ModelRequest.user_text_prompt(QUESTION)]
    counted = asyncio.run(model.count_tokens(messages, None, ModelRequestParameters()))
    assert counted.input_tokens == model_request_sync(model, messages).usage.input_tokens > 0
