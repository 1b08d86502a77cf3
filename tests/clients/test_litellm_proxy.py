"""LiteLLM's proxy in front of the gateway: what its clients ask for by OpenAI's and by Anthropic's API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from .asking import ANSWER, CALLED, FUNCTIONS, PATIENCE, QUESTION, REPORT, TINY, TOLD, TOOLS, WEATHER, script, user

START = 180.0  # seconds: it imports a great deal
MASTER = "sk-proxy"
NATIVE = "tiny-native"  # tiny-chat, asked by Anthropic's API


@pytest.fixture(scope="session")
def proxy(url: str, key: str, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    desk = tmp_path_factory.mktemp("proxy")
    models = [(name, f"openai/{name}", f"{url}/v1") for name in (TINY, "minilm", "script")]
    entries = [
        {"model_name": name, "litellm_params": {"model": model, "api_base": base, "api_key": key}}
        for name, model, base in (*models, (NATIVE, f"anthropic/{TINY}", url))
    ]
    config = desk / "config.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": entries, "general_settings": {"master_key": MASTER}}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(place / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    # without the second it looks for prices on the network
    env = {"PATH": os.environ["PATH"], "HOME": str(desk), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with subprocess.Popen(command, cwd=desk, env=env, **out) as process:  # type: ignore[call-overload]
        try:
            log = until_it_listens(process)
            rest = threading.Thread(target=log.extend, args=(process.stdout,), daemon=True)
            rest.start()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
        rest.join()  # before the pipe is closed under it


def until_it_listens(process: subprocess.Popen[str]) -> list[str]:
    """What it wrote until then; the time limit of the first test bounds it."""
    log: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        log.append(line)
        if "Uvicorn running on" in line:
            return log
    pytest.fail(f"the proxy has ended: {''.join(log)[-4000:]}")


@pytest.fixture
def through(proxy: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{proxy}/v1", api_key=MASTER, max_retries=0, timeout=PATIENCE) as made:
        yield made


@pytest.fixture
def claude_through(proxy: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=proxy, api_key=MASTER, max_retries=0, timeout=PATIENCE) as made:
        yield made


BOTH = pytest.mark.parametrize("model", [TINY, NATIVE])


@pytest.mark.timeout(START + 120)  # the first one waits for the proxy
@BOTH
def test_a_chat_is_the_same_streamed_and_whole(through: openai.OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": user(QUESTION), "max_tokens": 50}
    answer = through.chat.completions.create(**asked)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ANSWER, "stop")
    assert answer.usage and answer.usage.prompt_tokens > 0
    pieces = list(through.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == ANSWER
    assert pieces[-1].usage and pieces[-1].usage.total_tokens == answer.usage.total_tokens


@BOTH
def test_a_call_and_its_result_come_to_the_answer(through: openai.OpenAI, model: str) -> None:
    messages = user(WEATHER)
    asked: dict[str, Any] = {"model": model, "tools": TOOLS, "max_tokens": 200}
    said = through.chat.completions.create(messages=messages, **asked).choices[0].message
    call: Any = (said.tool_calls or [])[0]
    assert (call.function.name, json.loads(call.function.arguments)) == CALLED
    back = {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]}
    messages = [*messages, back, {"role": "tool", "tool_call_id": call.id, "content": REPORT}]
    assert through.chat.completions.create(messages=messages, **asked).choices[0].message.content == TOLD


def test_texts_are_embedded(through: openai.OpenAI) -> None:
    answer = through.embeddings.create(model="minilm", input=["a cat", "a dog"])
    assert [len(one.embedding) for one in answer.data] == [384, 384] and answer.usage.prompt_tokens > 0


@BOTH
def test_messages_are_the_same_streamed_and_whole(claude_through: anthropic.Anthropic, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": user(QUESTION), "max_tokens": 50}
    answer = claude_through.messages.create(**asked)
    assert answer.content[0].type == "text" and answer.content[0].text == ANSWER
    assert answer.stop_reason == "end_turn" and answer.usage.output_tokens > 0
    with claude_through.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == ANSWER


@BOTH
def test_messages_call_tools(claude_through: anthropic.Anthropic, model: str) -> None:
    tools: list[Any] = [
        {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]} for one in FUNCTIONS
    ]
    asked: dict[str, Any] = {"model": model, "messages": user(WEATHER), "tools": tools, "max_tokens": 200}
    answer = claude_through.messages.create(**asked)
    call = next(block for block in answer.content if block.type == "tool_use")
    assert ((call.name, call.input), answer.stop_reason) == (CALLED, "tool_use")


def test_a_mistake_keeps_its_class(through: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError):
        through.chat.completions.create(model="script", messages=script(["raise", 429, "no"]))
    with pytest.raises(openai.BadRequestError):
        through.chat.completions.create(model=TINY, messages=user("long " * 3000))
