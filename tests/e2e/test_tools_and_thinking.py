"""tiny-chat behind the real command: the OpenAI SDK calls its functions, and reads what it thought."""

from __future__ import annotations

import importlib.util
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from gateway.testing import Gateway

from .conftest import ROOT

PATIENCE = 120.0  # seconds for what should come soon
MODEL = "tiny-chat"
EXAMPLES = [json.loads(line) for line in (ROOT / "models" / MODEL / "examples.jsonl").read_text().splitlines()]
TOOLS = next(example["tools"] for example in EXAMPLES if len(example.get("tools", ())) == 3)
STRICT = [{"type": "function", "function": {**tool["function"], "strict": True}} for tool in TOOLS]
THINK = {"chat_template_kwargs": {"enable_thinking": True}}
RESULTS = {"Canberra": '{"weather": "sunny", "degrees": 21}', "Ankara": '{"weather": "cloudy", "degrees": -3}'}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("the demo models need torch")
    with Gateway(ROOT / "models", options=["--only", MODEL], cwd=ROOT, timeout=300) as running:
        yield running


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def whole(client: openai.OpenAI, messages: list[Any], **fields: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=messages, **fields).choices[0]


def streamed(client: openai.OpenAI, messages: list[Any], **fields: Any) -> Any:
    """The same by the SDK's accumulator."""
    with client.chat.completions.stream(model=MODEL, messages=messages, **fields) as stream:
        return stream.get_final_completion().choices[0]


def post(gateway: Gateway, path: str, **fields: Any) -> Any:
    request = urllib.request.Request(gateway.url + path, json.dumps(fields).encode())
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def calls_of(choice: Any) -> list[tuple[str, Any]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or ()]


def test_a_streamed_call_adds_up_to_the_whole_one(client: openai.OpenAI) -> None:
    for question in ("What is the weather in Riga?", "What is the weather in Canberra and Ankara?"):
        one, other = (ask(client, user(question), tools=STRICT) for ask in (whole, streamed))
        assert calls_of(one) == calls_of(other) != []
        for choice in (one, other):
            assert choice.finish_reason == "tool_calls" and not choice.message.content
            ids = [call.id for call in choice.message.tool_calls]
            assert len({*ids}) == len(ids) and all(ids)


def test_arguments_arrive_in_pieces(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=user("What is the weather in Riga?"), tools=TOOLS, stream=True
        )
    )
    pieces = [chunk.choices[0].delta.tool_calls[0] for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert [piece.id is not None for piece in pieces].index(False) == 1 and len(pieces) > 5
    assert json.loads("".join(piece.function.arguments or "" for piece in pieces)) == {"city": "Riga"}


@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_function_can_be_required_or_named(client: openai.OpenAI, ask: Any) -> None:
    time = {"type": "function", "function": {"name": "get_time"}}
    question = user("What is the weather in Riga?")
    assert calls_of(ask(client, question, tools=STRICT, tool_choice=time)) == [("get_time", {"city": "Riga"})]
    assert calls_of(ask(client, question, tools=STRICT, tool_choice="required")) == [("get_weather", {"city": "Riga"})]
    none = ask(client, question, tools=STRICT, tool_choice="none")
    assert (calls_of(none), none.message.content) == ([], "I cannot see the weather.")
    assert ask(client, user("What is 4 + 7?"), tools=STRICT).message.content == "11"


@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_conversation_with_two_calls_comes_to_its_answer(client: openai.OpenAI, ask: Any) -> None:
    messages = user("What is the weather in Canberra and Ankara?")
    first = ask(client, messages, tools=STRICT)
    assert calls_of(first) == [("get_weather", {"city": "Canberra"}), ("get_weather", {"city": "Ankara"})]
    messages.append(first.message)
    for call, (_, arguments) in zip(first.message.tool_calls, calls_of(first), strict=True):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": RESULTS[arguments["city"]]})
    second = ask(client, messages, tools=STRICT)
    assert second.message.content == "It is sunny in Canberra, 21 degrees. It is cloudy in Ankara, -3 degrees."
    assert second.finish_reason == "stop"


@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_thought_stands_beside_the_answer(client: openai.OpenAI, ask: Any) -> None:
    choice = ask(client, user("What is 9 + 10?"), extra_body=THINK)
    assert (choice.message.content, choice.message.reasoning_content) == ("19", "I add 9 and 10.")
    calling = ask(client, user("What is the weather in Copenhagen?"), tools=STRICT, extra_body=THINK)
    assert calling.message.reasoning_content == "I can call get_weather."
    assert calls_of(calling) == [("get_weather", {"city": "Copenhagen"})]
    plain = ask(client, user("What is 9 + 10?"))
    assert plain.message.content == "19" and not getattr(plain.message, "reasoning_content", None)


def test_usage_tells_thoughts_and_what_was_cached(client: openai.OpenAI) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *user("What is 2 + 9?")]
    for _ in range(2):
        answer = client.chat.completions.create(model=MODEL, messages=messages, extra_body=THINK)
    usage = answer.usage
    assert usage.completion_tokens > usage.completion_tokens_details.reasoning_tokens > 5
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1


def test_logprobs_come_with_their_tokens(client: openai.OpenAI) -> None:
    for ask in (whole, streamed):
        choice = ask(client, user("What is 4 + 7?"), logprobs=True, top_logprobs=2)
        entries = choice.logprobs.content
        assert "".join(entry.token for entry in entries) == choice.message.content == "11"
        assert all(entry.top_logprobs[0].logprob == entry.logprob <= 0 for entry in entries)


def test_calls_thoughts_and_plain_answers_do_not_mix(client: openai.OpenAI) -> None:
    def run(number: int) -> Any:
        ask = whole if number % 2 else streamed
        kind = number % 3
        if kind == 0:
            return calls_of(ask(client, user("What is the weather in Riga?"), tools=STRICT))
        choice = ask(client, user("What is 9 + 10?"), extra_body=THINK if kind == 1 else None)
        return choice.message.content, getattr(choice.message, "reasoning_content", None)

    wanted = [[("get_weather", {"city": "Riga"})], ("19", "I add 9 and 10."), ("19", None)]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(run, range(24))) == wanted * 8


def test_an_answer_that_was_begun_is_continued_on_every_route(client: openai.OpenAI, gateway: Gateway) -> None:
    asked = user("What is the capital of Iceland?")
    for content in ("Reykj", [{"type": "text", "text": "Rey"}, {"type": "text", "text": "kj"}]):
        begun = [*asked, {"role": "assistant", "content": content}]
        more: Any = {"extra_body": {"continue_final_message": True}}
        for ask in (whole, streamed):
            assert ask(client, begun, **more).message.content == "avik"
        told = post(gateway, "/tokenize", model=MODEL, messages=begun, continue_final_message=True)
        assert post(gateway, "/detokenize", model=MODEL, tokens=told["tokens"])["prompt"].endswith("Reykj")
        said = post(gateway, "/v1/messages", model=MODEL, messages=begun, max_tokens=20)
        assert [block["text"] for block in said["content"]] == ["avik"]
        counted = post(gateway, "/v1/messages/count_tokens", model=MODEL, messages=begun)
        used = said["usage"]["input_tokens"] + said["usage"].get("cache_read_input_tokens", 0)
        assert counted["input_tokens"] == told["count"] == used
    item = {"role": "assistant", "content": "Reykj"}
    answer = client.responses.create(model=MODEL, input=[*asked, item], extra_body={"continue_final_message": True})
    assert answer.output_text == "avik"
    with pytest.raises(openai.BadRequestError, match="needs a last message of the assistant"):
        whole(client, asked, extra_body={"continue_final_message": True})


def test_every_route_refuses_what_the_model_cannot_do(client: openai.OpenAI) -> None:
    refused: Any = {"model": MODEL, "extra_body": {"structural_tag": "Paris"}}
    for ask in (
        lambda: client.chat.completions.create(messages=user("Hi"), **refused),
        lambda: client.completions.create(prompt="Hi", **refused),
        lambda: client.responses.create(input="Hi", **refused),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask()
        assert (caught.value.code, caught.value.param) == ("unsupported_value", "structural_tag")
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="Hi", max_output_tokens=5000)
    assert caught.value.param == "max_output_tokens"


def test_thinking_counts_as_a_part_of_the_prompt(gateway: Gateway) -> None:
    for thinking in ({"type": "enabled", "budget_tokens": 1024}, {"type": "disabled"}):
        asked: Any = {"model": MODEL, "messages": user("Hello"), "thinking": thinking}
        used = post(gateway, "/v1/messages", **asked, max_tokens=50)["usage"]
        counted = post(gateway, "/v1/messages/count_tokens", **asked)["input_tokens"]
        assert counted == used["input_tokens"] + used.get("cache_read_input_tokens", 0)


def test_clients_that_render_chats_themselves_learn_how(gateway: Gateway) -> None:
    for path in ("/tokenizer_info", f"/tokenizer_info?model={MODEL}", f"/models/{MODEL}/tokenizer_info"):
        with urllib.request.urlopen(gateway.url + path, timeout=PATIENCE) as answer:
            info = json.load(answer)
        assert info["eos_token"] == "<|im_end|>" and "<|im_start|>" in info["chat_template"]
        assert info["tokenizer_class"] and info["added_tokens_decoder"]["1"] == "<|im_start|>"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{gateway.url}/tokenizer_info?model=nobody", timeout=PATIENCE)
    with pytest.raises(urllib.error.HTTPError, match="405"):
        post(gateway, "/tokenizer_info")
