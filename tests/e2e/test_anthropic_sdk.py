"""Anthropic's SDK against the real command with real workers; what the models do is written in each request."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import pytest

from gateway.testing import Gateway

from .conftest import ROOT, write_models
from .scripted import ASYNC, COMMON, GENERATOR, PLAIN
from .test_openai_sdk import PATIENCE, ask, is_free, script, wait_for

OWN = (
    COMMON
    + """
class Model:
    def messages(self, inputs):
        yield from play(inputs)
    def count_tokens(self, asked):
        return len(asked) if isinstance(asked, str) else sum(len(message["content"]) for message in asked)
"""
)
MIRROR = """
import json
class Model:
    def chat_completions(self, inputs):
        return json.dumps(inputs)
"""
MODELS = {"generator": GENERATOR, "async": ASYNC, "plain": PLAIN, "own": OWN, "mirror": MIRROR, "narrow": ASYNC}
SETTINGS = """
[models.generator]
slots = 8
[models.async]
slots = 16
max_queue = 100
[models.mirror]
max_body = "64KiB"
[models.narrow]
slots = 1
max_queue = 0
"""
TOOL: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("gateway")
    write_models(root / "models", {name: {"model.py": text} for name, text in MODELS.items()})
    (root / "gateway.toml").write_text(SETTINGS)
    with Gateway(root / "models", cwd=root) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with connect(gateway) as made:
        yield made


def connect(gateway: Gateway, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        **{"base_url": gateway.url, "api_key": "x", "max_retries": 0, "timeout": PATIENCE, **options}
    )


def fields(model: str, *steps: Any, **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 100, "messages": script(*steps), **more}


def whole(client: anthropic.Anthropic, *arguments: Any, **more: Any) -> Any:
    return client.messages.create(**fields(*arguments, **more))


def streamed(client: anthropic.Anthropic, *arguments: Any, **more: Any) -> Any:
    with client.messages.stream(**fields(*arguments, **more)) as stream:
        return stream.get_final_message()


def said(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["generator", "async", "own"])
@pytest.mark.parametrize("call", [whole, streamed])
def test_a_message_is_what_the_model_yields(client: anthropic.Anthropic, model: str, call: Any) -> None:
    steps = [{"usage": {"prompt_tokens": 7, "completion_tokens": 9}}, {"content": "three"}]
    if model == "async" and call is whole:  # which returns the last value
        steps = [{"content": "one two three", "usage": {"prompt_tokens": 7, "completion_tokens": 9}}]
        message = call(client, model, *steps)
    else:
        message = call(client, model, "one ", "two ", *steps)
    assert said(message) == "one two three" and message.model == model and message.id.startswith("msg_")
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 7, 9)


def test_text_arrives_as_the_model_yields_it(client: anthropic.Anthropic, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with client.messages.stream(**fields("generator", "one ", ["wait", str(go)], "two")) as stream:
        pieces = stream.text_stream
        assert next(pieces) == "one "
        go.touch()
        assert list(pieces) == ["two"]
        assert stream.request_id


def test_thoughts_and_tools_go_round(client: anthropic.Anthropic) -> None:
    calls = [
        {"reasoning_content": "I have to look."},
        "Let me see.",
        {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 1, "id": "call_2", "function": {"name": "weather", "arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ' "Oslo"}'}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": ' "Riga"}'}}]},
    ]
    for call in (whole, streamed):
        message = call(client, "generator", *calls, tools=[TOOL])
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert [block.input for block in message.content[2:]] == [{"city": "Oslo"}, {"city": "Riga"}]
        assert message.stop_reason == "tool_use"
    results = [
        {"type": "tool_result", "tool_use_id": "call_1", "content": "grey"},
        {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "blue"}]},
    ]
    turns = [
        {"role": "user", "content": "How is it in Oslo and Riga?"},
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": results},
    ]
    told = json.loads(said(client.messages.create(model="mirror", max_tokens=100, messages=turns, tools=[TOOL])))  # type: ignore[arg-type]
    assert [message["role"] for message in told["messages"]] == ["user", "assistant", "tool", "tool"]
    assert told["messages"][1]["reasoning_content"] == "I have to look."
    assert [call["id"] for call in told["messages"][1]["tool_calls"]] == ["call_1", "call_2"]
    assert [message["content"] for message in told["messages"][2:]] == ["grey", "blue"]
    assert told["tools"][0]["function"] == {"name": "weather", "parameters": TOOL["input_schema"]}


def test_events_are_anthropics_and_in_order(client: anthropic.Anthropic) -> None:
    stream = client.messages.create(**fields("generator", "a", {"reasoning": "b"}), stream=True)
    assert [event.type for event in stream] == [
        "message_start",
        *["content_block_start", "content_block_delta", "content_block_stop"] * 2,
        "message_delta",
        "message_stop",
    ]


def test_the_async_client_gets_64_answers_at_once(gateway: Gateway) -> None:
    async def run() -> None:
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="x", max_retries=0) as client:

            async def one(number: int) -> str:
                return said(await client.messages.create(**fields("async", f"answer {number}")))

            async def stream(number: int) -> str:
                async with client.messages.stream(**fields("async", *f"stream {number}")) as helper:
                    return await helper.get_final_text()

            found = await asyncio.gather(*(one(n) for n in range(32)), *(stream(n) for n in range(32)))
            assert found == [f"answer {n}" for n in range(32)] + [f"stream {n}" for n in range(32)]

    asyncio.run(run())


def test_a_class_with_messages_of_its_own_answers_in_anthropics_objects(client: anthropic.Anthropic) -> None:
    message = {
        "type": "message",
        "id": "msg_mine",
        "content": [{"type": "thinking", "thinking": "hm", "signature": "signed"}, {"type": "text", "text": "hi"}],
        "stop_reason": "stop_sequence",
        "stop_sequence": "END",
        "usage": {"input_tokens": 5, "output_tokens": 6},
    }
    for call in (whole, streamed):
        found = call(client, "own", message)
        assert (found.id, found.stop_reason, found.stop_sequence) == ("msg_mine", "stop_sequence", "END")
        assert (found.content[0].signature, said(found), found.usage.output_tokens) == ("signed", "hi", 6)


def test_events_that_a_class_frames_itself_reach_the_sdk(client: anthropic.Anthropic) -> None:
    start = {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": []}}
    start["message"] |= {"model": "own", "stop_reason": None, "usage": {"input_tokens": 1, "output_tokens": 0}}  # type: ignore[operator]
    values = [
        start,
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "mine"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    framed = [f"event: {value['type']}\ndata: {json.dumps(value)}\n\n" for value in values]
    for call in (whole, streamed):
        found = call(client, "own", *framed)
        assert (found.id, said(found), found.usage.output_tokens) == ("msg_1", "mine", 1)


def test_chunks_that_a_chat_model_frames_itself_are_read(client: anthropic.Anthropic) -> None:
    framed = [f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': text}}]})}\n\n" for text in "ab"]
    for call in (whole, streamed):
        assert said(call(client, "generator", *framed, "data: [DONE]\n\n")) == "ab"


# ── requests as clients send them ────────────────────────────────────────────────────────────────────────────────────


def test_an_agents_request_is_understood(client: anthropic.Anthropic) -> None:
    """Blocks everywhere, cache marks, beta fields and a system message in the middle, as coding agents send them."""
    cached = {"cache_control": {"type": "ephemeral"}}
    answer = client.messages.create(
        model="mirror",
        max_tokens=32000,
        timeout=PATIENCE,
        system=[{"type": "text", "text": "You are an agent.", **cached}, {"type": "text", "text": "Be brief."}],  # type: ignore[typeddict-item]
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "<reminder/>"}, {"type": "text", "text": "Hi", **cached}],
            },  # type: ignore[typeddict-item]
            {"role": "system", "content": "More rules."},  # type: ignore[typeddict-item]
            {"role": "user", "content": [{"type": "text", "text": "Go on."}]},
        ],
        tools=[{**TOOL, **cached}],
        metadata={"user_id": "user_1"},
        thinking={"type": "adaptive"},
        extra_body={"context_management": {"edits": []}, "temperature": 1},
        extra_headers={"anthropic-beta": "interleaved-thinking-2025-05-14"},
        extra_query={"beta": "true"},
    )
    told = json.loads(said(answer))
    assert told.pop("messages") == [
        {"role": "system", "content": "You are an agent.\nBe brief."},
        {"role": "user", "content": [{"type": "text", "text": "<reminder/>"}, {"type": "text", "text": "Hi"}]},
        {"role": "system", "content": "More rules."},
        {"role": "user", "content": "Go on."},
    ]
    assert told.pop("tools")[0]["type"] == "function"
    assert told == {
        "model": "mirror",
        "max_tokens": 32000,
        "max_completion_tokens": 32000,
        "temperature": 1,
        "user": "user_1",
        "chat_template_kwargs": {"enable_thinking": True},
    }


def test_litellms_request_is_understood(gateway: Gateway) -> None:
    body = {
        "model": "mirror",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json"}
    status, found, answer = ask(gateway, "POST", "/v1/messages", body, headers)
    assert status == 200 and found["request-id"] == found["x-request-id"]
    assert json.loads(json.loads(answer)["content"][0]["text"])["messages"] == [{"role": "user", "content": "Hi"}]


def test_a_model_has_a_base_url_of_its_own(gateway: Gateway) -> None:
    with connect(gateway, base_url=f"{gateway.url}/models/plain") as client:
        message = whole(client, "claude-sonnet", "hi")
        assert said(message) == "hi" and message.model == "claude-sonnet"


def test_models_are_listed_and_say_what_answers_their_messages(gateway: Gateway, client: anthropic.Anthropic) -> None:
    page = client.models.list()
    assert sorted(model.id for model in page) == sorted(MODELS) and not page.has_next_page()
    model = client.models.retrieve("own")
    assert (model.type, model.lifecycle, model.display_name) == ("model", "active", "own")
    listed = {item["id"]: item["capabilities"] for item in json.loads(ask(gateway, "GET", "/v1/models")[2])["data"]}
    assert "/v1/messages" in listed["mirror"]["derived"]
    assert "/v1/messages" in listed["own"]["routes"] and "/v1/messages" not in listed["own"]["derived"]


def test_tokens_are_counted_by_the_model(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(
        model="own", system="abc", messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    )
    assert counted.input_tokens == 8
    raw = client.messages.with_raw_response.count_tokens(
        model="mirror", messages=[{"role": "user", "content": "hello"}]
    )
    assert raw.parse().input_tokens == 2 and raw.headers["x-gateway-usage"] == "estimated"
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        client.messages.count_tokens(model="own", messages=[])


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("call", [whole, streamed])
@pytest.mark.parametrize("model", ["generator", "async", "own"])
@pytest.mark.parametrize(
    ("status", "kind", "name"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (422, anthropic.UnprocessableEntityError, "invalid_request_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (503, anthropic.InternalServerError, "overloaded_error"),
        (504, anthropic.InternalServerError, "timeout_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_a_status_that_the_model_chooses_is_the_sdks_own_class(
    client: anthropic.Anthropic, model: str, call: Any, status: int, kind: type[anthropic.APIStatusError], name: str
) -> None:
    with pytest.raises(kind, match="not like this") as caught:
        call(client, model, ["raise", "HTTPError", status, "not like this"])
    error = caught.value
    assert (error.status_code, error.type, error.api_message) == (status, name, "not like this")
    assert error.request_id and error.body["request_id"] == error.request_id  # type: ignore[index]


@pytest.mark.parametrize("call", [whole, streamed])
def test_an_exception_of_the_model_keeps_its_text_to_itself(
    gateway: Gateway, client: anthropic.Anthropic, call: Any
) -> None:
    with pytest.raises(anthropic.InternalServerError) as caught:
        call(client, "generator", ["raise", "Boom"])
    assert caught.value.type == "api_error" and "secret" not in str(caught.value)
    gateway.wait_for(rf"\[{caught.value.request_id}\](.|\n)*?Boom: secret details")


@pytest.mark.parametrize("model", ["generator", "async", "own"])
def test_an_error_after_the_first_item_raises_while_reading(client: anthropic.Anthropic, model: str) -> None:
    seen = ""
    with (
        client.messages.stream(**fields(model, "so far ", ["raise", "ValueError"])) as stream,
        pytest.raises(anthropic.APIStatusError, match="raised an error; `gateway logs ") as caught,
    ):
        for piece in stream.text_stream:
            seen += piece
    assert seen == "so far " and (caught.value.type, caught.value.status_code) == ("api_error", 200)
    assert caught.value.request_id


def test_mistakes_of_the_client_name_the_field(gateway: Gateway, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].content\[0\].source"):
        client.messages.create(
            model="mirror", max_tokens=5, messages=[{"role": "user", "content": [{"type": "image"}]}]
        )  # type: ignore[typeddict-item]
    with pytest.raises(anthropic.BadRequestError, match="web_search_20250305"):
        whole(client, "mirror", tools=[{"type": "web_search_20250305", "name": "web_search"}])
    with pytest.raises(anthropic.NotFoundError, match="no model named 'nobody'"):
        whole(client, "nobody")
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("nobody")
    with pytest.raises(anthropic.ContentTooLargeError) as large:
        whole(client, "mirror", "x" * 100_000)
    assert large.value.type == "request_too_large"
    for method, path, body, status, kind in (
        ("POST", "/v1/messages", [], 400, "invalid_request_error"),
        ("POST", "/v1/messages", {"model": "mirror", "messages": script("x")}, 400, "invalid_request_error"),
        ("POST", "/v1/messages/batches", {}, 404, "not_found_error"),
        ("GET", "/v1/messages", None, 405, "not_found_error"),
    ):
        found, headers, answer = ask(gateway, method, path, body)
        told = json.loads(answer)
        assert (found, told["type"], told["error"]["type"]) == (status, "error", kind)
        assert told["request_id"] == headers["request-id"]


@pytest.mark.parametrize("value", [{"generated_text": "x"}, 5, [], {"finish_reason": "whim"}])
def test_output_that_nobody_documented_is_an_error_of_the_server(client: anthropic.Anthropic, value: Any) -> None:
    for call in (whole, streamed):
        with pytest.raises(anthropic.InternalServerError) as caught:
            call(client, "plain", value)
        assert caught.value.response.headers["x-should-retry"] == "false"


def test_keys_are_taken_from_either_header(tmp_path: Path) -> None:
    write_models(tmp_path / "models", {"mirror": {"model.py": MIRROR}})
    with Gateway(tmp_path / "models", cwd=tmp_path, env={"GATEWAY_API_KEY": "secret"}) as gateway:
        with connect(gateway, api_key="secret") as client:
            assert whole(client, "mirror").type == "message"
        body = {"model": "mirror", "max_tokens": 5, "messages": script("x")}
        assert ask(gateway, "POST", "/v1/messages", body, {"x-api-key": "secret"})[0] == 200
        with connect(gateway, api_key="wrong") as client:
            with pytest.raises(anthropic.AuthenticationError, match="Incorrect API key provided") as caught:
                whole(client, "mirror")
            assert caught.value.type == "authentication_error" and caught.value.request_id
            with pytest.raises(anthropic.AuthenticationError) as listing:
                client.models.list()
            assert listing.value.type == "authentication_error"


# ── retries, and clients that leave ──────────────────────────────────────────────────────────────────────────────────


def count(path: Path) -> int:
    return path.read_text().count("once") if path.exists() else 0


@pytest.mark.parametrize(("status", "tries"), [(429, 3), (503, 3), (529, 3), (400, 1)])
def test_what_may_pass_is_tried_again(gateway: Gateway, tmp_path: Path, status: int, tries: int) -> None:
    calls = tmp_path / "calls"
    raises = ["raise", "HTTPError", status, "later", {"Retry-After-Ms": "1"}]
    with connect(gateway, max_retries=2) as client, pytest.raises(anthropic.APIStatusError, match="later"):
        whole(client, "plain", ["count", str(calls)], raises)
    assert count(calls) == tries


def test_a_full_model_is_tried_again_when_it_says(gateway: Gateway, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    with connect(gateway) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(whole, client, "narrow", ["touch", str(begun)], ["wait", str(go)], "first")
        wait_for(begun.exists, "the first call runs")
        with pytest.raises(anthropic.RateLimitError) as caught:
            whole(client, "narrow", "x")
        assert caught.value.type == "rate_limit_error" and int(caught.value.response.headers["retry-after"]) >= 1
        go.touch()
        assert said(first.result(PATIENCE)) == "first"
        assert said(whole(client.with_options(max_retries=8), "narrow", "second")) == "second"


@pytest.mark.parametrize("model", ["generator", "async", "own"])
def test_leaving_a_stream_runs_the_models_finally(
    gateway: Gateway, client: anthropic.Anthropic, tmp_path: Path, model: str
) -> None:
    left = tmp_path / "left"
    with client.messages.stream(**fields(model, ["finally", str(left)], *["x"] * 100_000)) as stream:
        next(stream.text_stream)
    wait_for(left.exists, "the model's finally ran")
    wait_for(is_free(gateway, model), "the slot is free")


# ── a real model ─────────────────────────────────────────────────────────────────────────────────────────────────────

TINY = ROOT / "models" / "tiny-chat"
EXAMPLES = [json.loads(line) for line in (TINY / "examples.jsonl").read_text().splitlines()]
OFFERED = next(example["tools"] for example in EXAMPLES if len(example.get("tools", ())) == 3)
TOOLS: Any = [
    {
        "name": tool["function"]["name"],
        "description": tool["function"]["description"],
        "input_schema": tool["function"]["parameters"],
        "strict": True,
    }
    for tool in OFFERED
]
WEATHER = {"Canberra": '{"weather": "sunny", "degrees": 21}', "Ankara": '{"weather": "cloudy", "degrees": -3}'}


@pytest.fixture(scope="module")
def tiny(demo: Gateway) -> Iterator[anthropic.Anthropic]:
    with connect(demo, timeout=60.0) as client:
        yield client


def talk(client: anthropic.Anthropic, messages: Any, *, stream: bool, **more: Any) -> Any:
    request: Any = {"model": "tiny-chat", "max_tokens": 200, "messages": messages, **more}
    if not stream:
        return client.messages.create(**request)
    with client.messages.stream(**request) as helper:
        return helper.get_final_message()


@pytest.mark.parametrize("stream", [False, True])
def test_tiny_chat_calls_tools_and_comes_to_its_answer(tiny: anthropic.Anthropic, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Canberra and Ankara?"}]
    first = talk(tiny, messages, stream=stream, tools=TOOLS)
    calls = [block for block in first.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == [
        ("get_weather", {"city": "Canberra"}),
        ("get_weather", {"city": "Ankara"}),
    ]
    assert first.stop_reason == "tool_use"
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": WEATHER[call.input["city"]]} for call in calls
    ]
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    second = talk(tiny, messages, stream=stream, tools=TOOLS)
    assert said(second) == "It is sunny in Canberra, 21 degrees. It is cloudy in Ankara, -3 degrees."
    assert second.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
def test_tiny_chat_thinks_when_it_is_asked_to(tiny: anthropic.Anthropic, stream: bool) -> None:
    messages = [{"role": "user", "content": "What is 9 + 10?"}]
    thought = talk(tiny, messages, stream=stream, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in thought.content] == ["thinking", "text"]
    assert (thought.content[0].thinking, said(thought)) == ("I add 9 and 10.", "19")
    quick = talk(tiny, messages, stream=stream, thinking={"type": "disabled"})
    assert [(block.type, said(quick)) for block in quick.content] == [("text", "19")]


def test_tiny_chat_is_forced_to_call_and_stopped_and_counted(tiny: anthropic.Anthropic) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Riga?"}]
    forced = talk(tiny, messages, stream=True, tools=TOOLS, tool_choice={"type": "tool", "name": "get_time"})
    assert [(block.name, block.input) for block in forced.content] == [("get_time", {"city": "Riga"})]
    count = [{"role": "user", "content": "Count to 9."}]
    stopped = talk(tiny, count, stream=False, stop_sequences=["5"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "5") and "5" not in said(stopped)
    short = talk(tiny, count, stream=False, max_tokens=2)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
    counted = tiny.messages.count_tokens(model="tiny-chat", messages=count)
    assert counted.input_tokens == short.usage.input_tokens + (short.usage.cache_read_input_tokens or 0)


def test_a_prompt_that_is_too_long_says_so_in_words_that_agents_know(tiny: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+ maximum"):
        talk(tiny, [{"role": "user", "content": "hello " * 5000}], stream=False)
    with pytest.raises(anthropic.BadRequestError) as caught:
        talk(tiny, [{"role": "user", "content": "hello"}], stream=False, max_tokens=5000)
    assert re.search(r"input length and `max_tokens` exceed context limit: \d+ \+ 5000 > 1024", caught.value.message)
    assert "prompt is too long" not in caught.value.message
