"""OpenAI's SDK on /v1/responses: the real command, real workers, and what it keeps between two requests."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from gateway.access import keys
from gateway.testing import Gateway

from .conftest import ROOT, write_models
from .scripted import ASYNC, COMMON, GENERATOR

PATIENCE = 60.0  # seconds for what should come at once

OWN = (
    COMMON
    + """
class Model:
    def responses(self, inputs):
        value = inputs["input"]
        text = value if isinstance(value, str) else value[-1]["content"]
        if text == "what did you get?":
            return json.dumps(inputs)
        return play({"steps": json.loads(text)})
"""
)
AGENT = '''
class Model:
    """Asks for the weather of two cities, then says what it heard."""
    def chat_completions(self, inputs):
        messages = inputs["messages"]
        heard = [message["content"] for message in messages if message["role"] == "tool"]
        if heard:
            thought = next(m["reasoning_content"] for m in messages if m.get("reasoning_content"))
            yield f"{thought} {' and '.join(heard)}."
            return
        yield {"reasoning_content": "Two cities."}
        yield "Let me look. "
        for index, city in enumerate(("Oslo", "Rome")):
            call = {"index": index, "id": f"call_{city}", "function": {"name": "weather", "arguments": '{"city":'}}
            yield {"tool_calls": [call]}
        for index, city in enumerate(("Oslo", "Rome")):
            yield {"tool_calls": [{"index": index, "function": {"arguments": f' "{city}"}}'}}]}
        yield {"usage": {"prompt_tokens": 10, "completion_tokens": 20}}
'''
PROXY = """
import openai
class Model:
    def responses(self, inputs):
        url = inputs["metadata"]["url"]
        client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
        body = {"model": "agent", "input": inputs["input"], "store": False}
        if inputs["metadata"]["how"] == "whole":
            return client.responses.create(**body)
        return client.responses.create(**body, stream=True)
"""
MODELS = {"proxy": PROXY, "script": GENERATOR, "async": ASYNC, "own": OWN, "agent": AGENT, "org/narrow": ASYNC}
SETTINGS = """
[models.script]
slots = 16
[models.async]
slots = 16
[models."org/narrow"]
slots = 1
max_queue = 0
"""
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("responses")
    write_models(root / "models", {name: {"model.py": text} for name, text in MODELS.items()})
    (root / "gateway.toml").write_text(SETTINGS)
    with Gateway(root / "models", cwd=root) as running:
        yield running


def connect(gateway: Gateway, key: str = "unused", path: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}{path}", api_key=key, max_retries=0, timeout=PATIENCE)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with connect(gateway) as made:
        yield made


def script(*steps: Any) -> str:
    return json.dumps(steps)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.01)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["script", "async", "own"])
def test_an_answer_is_the_same_whole_from_every_kind_of_method(client: openai.OpenAI, model: str) -> None:
    answer = client.responses.create(model=model, input=script("héllo"), instructions="Be brief.", metadata={"a": "b"})
    assert (answer.output_text, answer.status, answer.model) == ("héllo", "completed", model)
    assert answer.id.startswith("resp_") and answer._request_id
    assert (answer.instructions, answer.metadata, answer.error) == ("Be brief.", {"a": "b"}, None)
    assert answer.usage is not None and answer.usage.total_tokens > 0


@pytest.mark.parametrize("model", ["script", "async", "own"])
def test_a_stream_is_what_the_model_yields_as_it_yields_it(client: openai.OpenAI, tmp_path: Path, model: str) -> None:
    go = tmp_path / "go"
    stream = client.responses.create(model=model, input=script("one ", ["wait", str(go)], "two"), stream=True)
    types, pieces = [], []
    for number, event in enumerate(stream):
        assert event.sequence_number == number
        types.append(event.type)
        if event.type == "response.output_text.delta":
            pieces.append(event.delta)
            go.touch()
    assert pieces == ["one ", "two"]
    assert (types[0], types[-1]) == ("response.created", "response.completed")


def test_the_stream_helper_reads_every_kind_of_item(client: openai.OpenAI) -> None:
    with client.responses.stream(model="agent", input="How is it there?", tools=[WEATHER]) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.function_call_arguments.delta"]
        answer = stream.get_final_response()
    assert snapshots == ['{"city":', '{"city": "Oslo"}', '{"city":', '{"city": "Rome"}']
    reasoning, message, *calls = answer.output
    assert reasoning.type == "reasoning" and reasoning.content and reasoning.content[0].text == "Two cities."
    assert message.type == "message" and answer.output_text == "Let me look. "
    assert [call.parsed_arguments for call in calls if call.type == "function_call"] == [
        {"city": "Oslo"},
        {"city": "Rome"},
    ]
    assert answer.usage is not None and (answer.usage.input_tokens, answer.usage.output_tokens) == (10, 20)


def test_an_answer_in_a_schema_is_parsed(client: openai.OpenAI) -> None:
    class Point(pydantic.BaseModel):
        x: int
        y: int

    steps = script({"content": '{"x": 1,'}, {"content": ' "y": 2}'})
    assert client.responses.parse(model="script", input=steps, text_format=Point).output_parsed == Point(x=1, y=2)
    with client.responses.stream(model="script", input=steps, text_format=Point) as stream:
        assert stream.get_final_response().output_parsed == Point(x=1, y=2)


def test_what_was_cut_is_incomplete_and_what_was_refused_is_a_refusal(client: openai.OpenAI) -> None:
    cut = client.responses.create(model="script", input=script({"content": "so f", "finish_reason": "length"}))
    assert cut.status == "incomplete" and cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    no = client.responses.create(model="script", input=script({"refusal": "I won't."}))
    assert no.output[0].type == "message" and no.output[0].content[0].type == "refusal"


def test_the_asynchronous_sdk_does_the_same(gateway: Gateway) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client:
            steps = script("a", "b")
            async with client.responses.stream(model="async", input=steps) as stream:
                first = await stream.get_final_response()
            assert first.output_text == "ab"
            again = await client.responses.retrieve(first.id)
            assert again.output_text == "ab"
            items = [item async for item in client.responses.input_items.list(first.id)]
            assert len(items) == 1
            await client.responses.delete(first.id)
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(first.id)

    asyncio.run(run())


# ── a method of its own ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_method_of_its_own_gets_the_request_as_it_was_sent(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "own",
        "input": "what did you get?",
        "tools": [{"type": "web_search"}],
        "max_output_tokens": 9,
    }
    answer = client.responses.create(**asked)
    assert json.loads(answer.output_text) == asked
    items: Any = [{"type": "message", "role": "user", "content": "what did you get?"}]
    later = client.responses.create(model="own", input=items, previous_response_id=answer.id)
    got = json.loads(later.output_text)
    assert [item["role"] for item in got["input"]] == ["user", "assistant", "user"]
    assert got["input"][1]["content"][0]["text"] == answer.output_text and got["previous_response_id"] == answer.id


def test_a_whole_response_of_the_model_passes_with_the_rest_filled_in(client: openai.OpenAI) -> None:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "by hand"}]}
    made = {"object": "response", "id": "resp_by_hand", "output": [message]}
    whole = client.responses.create(model="own", input=script(made))
    assert (whole.id, whole.output_text, whole.status, whole.tools) == ("resp_by_hand", "by hand", "completed", [])
    with client.responses.stream(model="own", input=script(made)) as stream:
        assert stream.get_final_response().output_text == "by hand"
    assert client.responses.retrieve("resp_by_hand").output_text == "by hand"


@pytest.mark.parametrize("how", ["whole", "streamed"])
def test_what_another_server_answers_to_the_sdk_can_be_passed_on(
    gateway: Gateway, client: openai.OpenAI, how: str
) -> None:
    metadata = {"url": f"{gateway.url}/v1", "how": how}
    whole = client.responses.create(model="proxy", input="How is it there?", metadata=metadata)
    with client.responses.stream(model="proxy", input="How is it there?", metadata=metadata) as stream:
        streamed = stream.get_final_response()
    for answer in (whole, streamed):
        assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"]
        assert answer.output[3].type == "function_call" and answer.output[3].arguments == '{"city": "Rome"}'
        assert (answer.model, answer.output_text) == ("proxy", "Let me look. ")
        assert answer.usage is not None and answer.usage.output_tokens == 20
        assert client.responses.retrieve(answer.id).output_text == answer.output_text


def test_events_that_the_model_frames_itself_pass_untouched(client: openai.OpenAI) -> None:
    response = {"id": "resp_raw", "object": "response", "status": "completed", "output": []}
    kinds = ("response.created", "response.completed")
    events = [{"type": kind, "sequence_number": number, "response": response} for number, kind in enumerate(kinds)]
    frames = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
    found: Any = list(client.responses.create(model="own", input=script(*frames), stream=True))
    assert [(event.type, event.response.id) for event in found] == [(kind, "resp_raw") for kind in kinds]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_raw")


# ── kept ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_answers_calls_by_their_outputs_alone(client: openai.OpenAI, stream: bool) -> None:
    def ask(**fields: Any) -> Any:
        if not stream:
            return client.responses.create(model="agent", tools=[WEATHER], **fields)
        with client.responses.stream(model="agent", tools=[WEATHER], **fields) as helper:
            return helper.get_final_response()

    first = ask(input="How is it there?", parallel_tool_calls=True)
    outputs = [
        {
            "type": "function_call_output",
            "call_id": item.call_id,
            "output": f"{item.name} in {json.loads(item.arguments)['city']}",
        }
        for item in first.output
        if item.type == "function_call"
    ]
    second = ask(input=outputs, previous_response_id=first.id)
    assert second.output_text == "Two cities. weather in Oslo and weather in Rome."
    assert second.previous_response_id == first.id


def test_an_agent_that_keeps_its_own_history_sends_it_all_and_has_nothing_kept(client: openai.OpenAI) -> None:
    history: list[Any] = [
        {"role": "developer", "content": [{"type": "input_text", "text": "You are an agent."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "How is it there?"}]},
    ]
    more: Any = {
        "store": False,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "a-session",
        "text": {"verbosity": "low"},
    }
    with client.responses.stream(model="agent", input=history, tools=[WEATHER], **more) as stream:
        done = [event.item for event in stream if event.type == "response.output_item.done"]
        first = stream.get_final_response()
    assert first.store is False  # type: ignore[attr-defined]
    for item in done:
        sent = item.to_dict(mode="json")
        history.append({name: value for name, value in sent.items() if name not in ("id", "status")})
        if item.type == "function_call":
            history.append({"type": "function_call_output", "call_id": item.call_id, "output": "rain"})
    history.sort(key=lambda item: item.get("type") == "function_call_output")
    second = client.responses.create(model="agent", input=history, tools=[WEATHER], **more)
    assert second.output_text == "Two cities. rain and rain."
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_input_items_are_read_page_after_page(client: openai.OpenAI) -> None:
    items: Any = [{"role": "user", "content": f"{number}"} for number in range(6)]
    answer = client.responses.create(model="script", input=[*items, {"role": "user", "content": script("x")}])

    def texts(**fields: Any) -> list[str]:
        return [item.content[0].text for item in client.responses.input_items.list(answer.id, **fields)]  # type: ignore[union-attr]

    assert texts(limit=2) == [script("x"), *"543210"]
    assert texts(limit=3, order="asc") == [*"012345", script("x")]
    page = client.responses.input_items.list(answer.id, limit=4, order="asc")
    assert page.has_next_page() and len(page.data) == 4 and page.data[0].id != page.data[1].id


def test_a_response_is_gone_when_it_was_deleted(client: openai.OpenAI) -> None:
    first = client.responses.create(model="script", input=script("x"))
    assert client.responses.retrieve(first.id) == first
    client.responses.delete(first.id)
    for again in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError) as caught:
            again(first.id)
        assert caught.value.code == "response_not_found"
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="script", input=script("y"), previous_response_id=first.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_below_the_url_of_a_model_are_its_own_responses(gateway: Gateway, client: openai.OpenAI) -> None:
    with connect(gateway, path="/models/org/narrow/v1") as narrow:
        answer = narrow.responses.create(model="gpt-4", input=script("mine"))
        assert answer.model == "gpt-4" and narrow.responses.retrieve(answer.id).output_text == "mine"
        other = client.responses.create(model="script", input=script("x"))
        with pytest.raises(openai.NotFoundError):
            narrow.responses.retrieve(other.id)


def test_responses_outlive_the_gateway_in_a_file_and_are_seen_by_their_key_alone(tmp_path: Path) -> None:
    write_models(tmp_path / "models", {"script": {"model.py": GENERATOR}})
    (tmp_path / "gateway.toml").write_text('[gateway.responses]\npath = "state/responses.db"\n')
    made = {name: keys.create(name) for name in ("one", "two")}
    keys.write(tmp_path / "keys.toml", [key for key, _ in made.values()])
    with Gateway(tmp_path / "models", cwd=tmp_path) as gateway, connect(gateway, made["one"][1]) as client:
        first = client.responses.create(model="script", input=script("x"))
        assert gateway.stop() == 0
    with Gateway(tmp_path / "models", cwd=tmp_path) as gateway:
        with connect(gateway, made["one"][1]) as client:
            second = client.responses.create(model="script", input=script("y"), previous_response_id=first.id)
            assert (second.output_text, len(list(client.responses.input_items.list(second.id)))) == ("y", 3)
        with connect(gateway, made["two"][1]) as other, pytest.raises(openai.NotFoundError):
            other.responses.retrieve(first.id)
        with connect(gateway, "wrong") as nobody, pytest.raises(openai.AuthenticationError):
            nobody.responses.retrieve(first.id)


def test_an_answer_that_ends_while_the_gateway_stops_is_kept(tmp_path: Path) -> None:
    write_models(tmp_path / "models", {"script": {"model.py": GENERATOR}})
    (tmp_path / "gateway.toml").write_text('[gateway.responses]\npath = "responses.db"\n')
    steps = script("one ", ["wait", str(tmp_path / "go")], "two")
    with Gateway(tmp_path / "models", cwd=tmp_path) as gateway, connect(gateway) as client:
        with client.responses.stream(model="script", input=steps) as stream:
            next(event for event in stream if event.type == "response.output_text.delta")
            gateway.process.send_signal(signal.SIGTERM)
            gateway.wait_for("stopping")
            (tmp_path / "go").touch()
            answer = stream.get_final_response()
        assert gateway.wait() == 0
    assert answer.output_text == "one two" and answer.to_dict()["store"] is True
    with Gateway(tmp_path / "models", cwd=tmp_path) as gateway, connect(gateway) as client:
        assert client.responses.retrieve(answer.id).output_text == "one two"


def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    write_models(tmp_path / "models", {"script": {"model.py": GENERATOR}})
    (tmp_path / "no.db").write_text("this is no database, whatever its name says\n" * 100)
    (tmp_path / "gateway.toml").write_text('[gateway.responses]\npath = "no.db"\n')
    gateway = Gateway(tmp_path / "models", cwd=tmp_path)
    assert gateway.wait() != 0
    assert "[gateway.responses] path" in gateway.log and "Traceback" not in gateway.log


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "error", "code", "param"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found", "model"),
        ({"input": []}, openai.BadRequestError, "invalid_value", "input"),
        (
            {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
            openai.BadRequestError,
            "unsupported_value",
            "tool_choice.type",
        ),
        ({"background": True}, openai.BadRequestError, "unsupported_value", "background"),
        ({"conversation": "conv_1"}, openai.BadRequestError, "unsupported_value", "conversation"),
        ({"input": script(["raise", "HTTPError", 429, "slow down"])}, openai.RateLimitError, "scripted", "p"),
        ({"input": script(["raise", "Boom"])}, openai.InternalServerError, "model_error", None),
        ({"input": script({"nonsense": 1})}, openai.InternalServerError, "invalid_model_output", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_item_is_an_error_of_its_class(
    client: openai.OpenAI,
    fields: dict[str, Any],
    error: type[openai.APIStatusError],
    code: str,
    param: Any,
    stream: bool,
) -> None:
    with pytest.raises(error) as caught:
        client.responses.create(**{"model": "script", "input": script("x"), **fields}, stream=stream)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert "secret details" not in str(caught.value)


def test_a_failure_in_mid_stream_is_a_failed_response(client: openai.OpenAI, tmp_path: Path) -> None:
    go = tmp_path / "go"
    steps = script("some", ["wait", str(go)], ["raise", "Boom"])
    stream = client.responses.create(model="script", input=steps, stream=True)
    events = []
    for event in stream:
        events.append(event)
        go.touch()
    last = events[-1]
    assert last.type == "response.failed" and last.response.status == "failed"
    assert last.response.error is not None and last.response.error.code == "server_error"
    assert "secret details" not in last.response.error.message
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(last.response.id)


@pytest.mark.parametrize("model", ["script", "async", "own", "org/narrow"])
def test_closing_a_stream_runs_the_models_finally_and_keeps_nothing(
    client: openai.OpenAI, tmp_path: Path, model: str
) -> None:
    left = tmp_path / "left"
    stream = client.responses.create(model=model, input=script(["finally", str(left)], *["x"] * 50_000), stream=True)
    created = next(iter(stream))
    assert created.type == "response.created"
    stream.close()
    wait_for(left.exists, "the model's finally ran")
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(created.response.id)


# ── tiny-chat ────────────────────────────────────────────────────────────────────────────────────────────────────────

TINY = ROOT / "models" / "tiny-chat"
EXAMPLES = [json.loads(line) for line in (TINY / "examples.jsonl").read_text().splitlines()]
OFFERED = next(example["tools"] for example in EXAMPLES if len(example.get("tools", ())) == 3)
HEARD = {"Canberra": '{"weather": "sunny", "degrees": 21}', "Ankara": '{"weather": "cloudy", "degrees": -3}'}


@pytest.fixture(scope="module")
def tiny(demo: Gateway) -> Iterator[openai.OpenAI]:
    with connect(demo) as client:
        yield client


def talk(client: openai.OpenAI, text: Any, *, stream: bool, **more: Any) -> Any:
    if not stream:
        return client.responses.create(model="tiny-chat", input=text, **more)
    with client.responses.stream(model="tiny-chat", input=text, **more) as helper:
        return helper.get_final_response()


@pytest.mark.parametrize("stream", [False, True])
def test_tiny_chat_calls_tools_and_comes_to_its_answer(tiny: openai.OpenAI, stream: bool) -> None:
    tools = [{"type": "function", "strict": True, **tool["function"]} for tool in OFFERED]
    for tool in tools:
        tool["parameters"]["additionalProperties"] = False
    first = talk(tiny, "What is the weather in Canberra and Ankara?", stream=stream, tools=tools)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(call.name, json.loads(call.arguments)["city"]) for call in calls] == [
        ("get_weather", "Canberra"),
        ("get_weather", "Ankara"),
    ]
    outputs = [
        {"type": "function_call_output", "call_id": call.call_id, "output": HEARD[json.loads(call.arguments)["city"]]}
        for call in calls
    ]
    second = talk(tiny, outputs, stream=stream, tools=tools, previous_response_id=first.id)
    assert second.output_text == "It is sunny in Canberra, 21 degrees. It is cloudy in Ankara, -3 degrees."


@pytest.mark.parametrize("stream", [False, True])
def test_tiny_chat_thinks_when_it_is_asked_to(tiny: openai.OpenAI, stream: bool) -> None:
    more = {"chat_template_kwargs": {"enable_thinking": True}}
    thought = talk(tiny, "What is 9 + 10?", stream=stream, extra_body=more)
    assert [item.type for item in thought.output] == ["reasoning", "message"]
    assert (thought.output[0].content[0].text, thought.output_text) == ("I add 9 and 10.", "19")


def test_tiny_chat_s_answer_is_cut_counted_and_weighed(tiny: openai.OpenAI) -> None:
    cut = talk(tiny, "Repeat: alpha beta gamma", stream=False, max_output_tokens=2, top_logprobs=2)
    assert cut.status == "incomplete" and cut.usage.output_tokens == 2
    tokens = cut.output[0].content[0].logprobs
    assert len(tokens) == 2 and all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)
