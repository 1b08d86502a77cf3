"""Simon Willison's llm: its Python API and its command, by chat, completions and responses."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llm
import openai
import pytest
import yaml

from .asking import ANSWER, PATIENCE, QUESTION, REPORT, SUM, TINY, TOLD, WEATHER, steps

KINDS: dict[str, dict[str, Any]] = {
    "chat": {},
    "responses": {"responses": True},
    "completion": {"completion": True},
}


@pytest.fixture(autouse=True)
def home(url: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """llm's directory, where the gateway's models stand as `tiny-chat by chat` and the like."""
    models = [
        {
            "model_id": f"{model} by {kind}",
            "model_name": model,
            "api_base": f"{url}/v1",
            "api_key_name": "gateway",
            "supports_tools": kind != "completion",
            "supports_schema": kind != "completion",
            **fields,
        }
        for model in (TINY, "script")
        for kind, fields in KINDS.items()
    ]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    (tmp_path / "keys.json").write_text(json.dumps({"gateway": key}))
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return tmp_path


def command(*arguments: str) -> str:
    """What `llm …` prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "llm", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def get_weather(city: str) -> str:
    """Tells the weather in a city."""
    return REPORT


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_prompt_is_answered(kind: str, stream: bool) -> None:
    response = llm.get_model(f"{TINY} by {kind}").prompt(QUESTION, stream=stream)
    assert response.text() == ANSWER
    usage = response.usage()
    assert usage.input and usage.output and usage.input > usage.output


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_is_what_the_model_yields(kind: str, stream: bool) -> None:
    assert llm.get_model(f"script by {kind}").prompt(steps("one ", "two"), stream=stream).text() == "one two"


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_an_async_model_streams(kind: str) -> None:
    async def run() -> str:
        return "".join([piece async for piece in llm.get_async_model(f"{TINY} by {kind}").prompt(QUESTION)])

    assert asyncio.run(run()) == ANSWER


def test_a_conversation_remembers() -> None:
    conversation = llm.get_model("script by chat").conversation()
    assert conversation.prompt("first", system="Be brief.").text() == "first"
    seen = json.loads(conversation.prompt(steps(["show", "messages"])).text())["messages"]
    assert [message["role"] for message in seen] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_tool_is_called_and_its_result_told(kind: str, stream: bool) -> None:
    chain = llm.get_model(f"{TINY} by {kind}").chain(WEATHER, tools=[get_weather], stream=stream)
    assert chain.text() == TOLD


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_an_answer_of_a_given_form_is_asked_for(kind: str) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    response = llm.get_model(f"script by {kind}").prompt(steps(["show", "response_format"]), schema=schema)
    assert json.loads(response.text())["response_format"]["json_schema"]["schema"]["required"] == ["city"]


def test_an_error_says_what_the_gateway_said() -> None:
    with pytest.raises(openai.BadRequestError, match="not like this"):
        llm.get_model("script by chat").prompt(steps(["raise", 400, "not like this"])).text()


def test_the_command_lists_asks_and_calls_tools(url: str, key: str) -> None:
    assert f"{TINY} by chat" in command("models")
    assert command("-m", f"{TINY} by chat", QUESTION) == ANSWER
    code = f"def get_weather(city: str) -> str:\n    'Tells the weather in a city.'\n    return {REPORT!r}\n"
    assert command("-m", f"{TINY} by chat", "--functions", code, WEATHER) == TOLD


def test_the_command_goes_on_with_what_was_said() -> None:
    assert command("-m", "script by responses", "first") == "first"
    seen = json.loads(command("-c", steps(["show", "messages"])))["messages"]
    assert [message["role"] for message in seen] == ["user", "assistant", "user"]


def test_the_command_finds_models_at_an_address(url: str, key: str) -> None:
    where = ("openai", "endpoint", f"{url}/v1", "--key", key)
    assert {TINY, "minilm", "script"} <= {*command(*where, "--models").split()}
    assert command(*where, "-m", TINY, SUM) == command(*where, "-m", TINY, "--responses", SUM) == "19"
