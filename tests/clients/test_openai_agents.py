"""OpenAI's Agents SDK: agents that call tools, hand over and answer in a given form, by responses and by chat."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import openai
import pydantic
import pytest
from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)

from .asking import ANSWER, PATIENCE, QUESTION, REPORT, TINY, TOLD, WEATHER, steps

Make = Callable[[str], Model]
GREEDY = ModelSettings(temperature=0)


class Report(pydantic.BaseModel):
    city: str
    degrees: int


@function_tool
def get_weather(city: str) -> str:
    """Tells the weather in a city."""
    return REPORT


@pytest.fixture(params=[OpenAIResponsesModel, OpenAIChatCompletionsModel], ids=["responses", "chat"])
def model(request: pytest.FixtureRequest, url: str, key: str) -> Make:
    set_tracing_disabled(True)  # which would go to OpenAI

    def make(name: str) -> Model:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)
        made: Model = request.param(model=name, openai_client=client)
        return made

    return make


def test_an_agent_answers(model: Make) -> None:
    agent = Agent(name="assistant", instructions="Be brief.", model=model(TINY), model_settings=GREEDY)
    result = asyncio.run(Runner.run(agent, QUESTION))
    assert result.final_output == ANSWER and result.context_wrapper.usage.output_tokens > 0


def test_an_agent_streams(model: Make) -> None:
    async def run() -> tuple[str, Any]:
        running = Runner.run_streamed(Agent(name="assistant", model=model(TINY), model_settings=GREEDY), QUESTION)
        pieces = [
            event.data.delta
            async for event in running.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        return "".join(pieces), running.final_output

    assert asyncio.run(run()) == (ANSWER, ANSWER)


def test_an_agent_goes_on_from_what_is_kept(url: str, key: str) -> None:
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)
    agent = Agent(name="assistant", model=OpenAIResponsesModel(model="script", openai_client=client))

    async def run() -> Any:
        first = await Runner.run(agent, "first")
        return await Runner.run(agent, steps(["show", "messages"]), previous_response_id=first.last_response_id)

    seen = json.loads(asyncio.run(run()).final_output)["messages"]
    assert [message["role"] for message in seen] == ["user", "assistant", "user"]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_calls_its_tool(model: Make, streamed: bool) -> None:
    async def run() -> Any:
        agent = Agent(name="assistant", model=model(TINY), tools=[get_weather], model_settings=GREEDY)
        if not streamed:
            return (await Runner.run(agent, WEATHER)).final_output
        running = Runner.run_streamed(agent, WEATHER)
        async for _ in running.stream_events():
            pass
        return running.final_output

    assert asyncio.run(run()) == TOLD


def test_an_agent_hands_over_to_another(model: Make) -> None:
    clerk = Agent(name="clerk", model=model("script"), instructions="Be the clerk.")
    desk = Agent(name="desk", model=model("script"), handoffs=[clerk])
    plan = steps({"tool_calls": [{"name": "transfer_to_clerk", "arguments": {}}]})
    result = asyncio.run(Runner.run(desk, plan))
    assert result.last_agent.name == "clerk" and "The tool said" in result.final_output


def test_an_agent_answers_in_a_given_form(model: Make) -> None:
    report = Report(city="Oslo", degrees=-3)
    agent = Agent(name="assistant", model=model("script"), output_type=Report)
    assert asyncio.run(Runner.run(agent, steps(report.model_dump_json()))).final_output == report


def test_an_error_is_the_sdks_own(model: Make) -> None:
    agent = Agent(name="assistant", model=model("script"))
    with pytest.raises(openai.BadRequestError, match="not like this"):
        asyncio.run(Runner.run(agent, steps(["raise", 400, "not like this"])))
