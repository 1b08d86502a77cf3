"""Every row of the table of outputs, as an author would write it, through a real worker to the real SDK."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.testing import Gateway

from .conftest import write_models

MODEL = '''
from dataclasses import dataclass
from typing import TypedDict

import pydantic
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.responses import JSONResponse

from gateway.chat import deltas

ENVELOPE = {"id": "x", "created": 5, "model": "up"}


class Delta(pydantic.BaseModel):
    content: str
    finish_reason: str | None = None

class City(pydantic.BaseModel):
    name: str

@dataclass
class Said:
    content: str

class Typed(TypedDict):
    content: str

class Items:
    """Neither list nor generator."""
    def __init__(self, *items):
        self.items = iter(items)
    def __iter__(self):
        return self
    def __next__(self):
        return next(self.items)

def chunk(text):
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return ChatCompletionChunk.model_validate({**ENVELOPE, "object": "chat.completion.chunk", "choices": [choice]})

def completion(text):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
    return ChatCompletion.model_validate({**ENVELOPE, "object": "chat.completion", "choices": [choice]})

def with_return_value():
    yield "on"
    return {"content": "e", "finish_reason": "length"}

async def later(*items):
    for item in items:
        yield item

RAW = 'data: {"choices":[{"index":0,"delta":{"content":"one"},"finish_reason":null}]}\\n\\n'

CASES = {
    "str": lambda: "one",
    "str pieces": lambda: iter(["o", "", None, "ne"]),
    "bytes": lambda: "one".encode(),
    "half characters": lambda: iter([b"\\xc3", b"\\xa9"]),
    "nothing": lambda: None,
    "no items": lambda: iter([]),
    "no items, later": lambda: later(),
    "content": lambda: {"content": "one"},
    "parts": lambda: {"content": [{"type": "text", "text": "on"}, {"type": "text", "text": "e"}]},
    "choices": lambda: {**ENVELOPE, "choices": [{"message": {"role": "assistant", "content": "one"}}]},
    "deltas": lambda: iter([{"choices": [{"delta": {"content": text}}]} for text in ("o", "ne")]),
    "pydantic": lambda: Delta(content="one"),
    "answer to a format": lambda: City(name="Oslo"),
    "dataclass": lambda: Said("one"),
    "typed dict": lambda: Typed(content="one"),
    "chunks of the SDK": lambda: iter([chunk("o"), chunk("ne")]),
    "object of the SDK": lambda: completion("one"),
    "own SSE": lambda: iter([RAW[:9], RAW[9:].encode(), "data: [DONE]\\n\\n"]),
    "own SSE without [DONE]": lambda: iter([": ping\\r\\n\\r\\n", RAW.replace("null", '"stop"')]),
    "return value": with_return_value,
    "iterator": lambda: Items("on", "e"),
    "async generator": lambda: later("on", b"e"),
    "growing": lambda: deltas(["o", "one"]),
    "growing later": lambda: deltas(later("o", "one")),
    "error": lambda: {"error": {"message": "too hot", "code": "hot"}, "status": 422},
    "late error": lambda: iter(["on", {"error": "too hot"}]),
    "role alone": lambda: {"role": "assistant"},
    "unknown keys": lambda: {"generated_text": "one"},
    "tuple": lambda: ("one", {"usage": {}}),
    "list": lambda: ["one"],
    "number": lambda: 5,
    "by hand": lambda: JSONResponse({"mine": True}, 207),
}

class Model:
    async def chat_completions(self, body):
        return CASES[body["messages"][-1]["content"]]()
'''
ASKER = """
from starlette.requests import Request

class Model:
    async def chat_completions(self, request: Request):
        body = await request.json()
        return f"{request.headers['x-mine']} {body['messages'][-1]['content']} {body['stop']}"

    async def completions(self, body, request: Request):
        return str(await request.json() == body)
"""
SAME = (
    *("str", "str pieces", "bytes", "content", "parts", "choices", "deltas", "pydantic", "dataclass", "typed dict"),
    *("chunks of the SDK", "object of the SDK", "own SSE", "own SSE without [DONE]", "return value", "iterator"),
    *("async generator", "growing", "growing later"),
)
NOTHING = ("nothing", "no items", "no items, later")
TEXTS = {
    **dict.fromkeys(SAME, "one"),
    **dict.fromkeys(NOTHING, ""),
    "half characters": "é",
    "answer to a format": '{"name":"Oslo"}',
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    root: Path = tmp_path_factory.mktemp("gateway")
    write_models(root / "models", {"rows": {"model.py": MODEL}, "asker": {"model.py": ASKER}})
    with (
        Gateway(root / "models", cwd=root) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="unused", max_retries=0, timeout=30) as client,
    ):
        yield client


def ask(client: openai.OpenAI, case: str, **fields: Any) -> Any:
    return client.chat.completions.create(model="rows", messages=[{"role": "user", "content": case}], **fields)


@pytest.mark.parametrize("case", TEXTS)
def test_a_row_means_the_same_streamed_and_whole(client: openai.OpenAI, case: str) -> None:
    whole = ask(client, case)
    assert whole.choices[0].message.content == TEXTS[case]
    chunks = list(ask(client, case, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXTS[case]
    reason = "length" if case in ("return value", "object of the SDK") else "stop"
    assert whole.choices[0].finish_reason == reason
    if "SSE" not in case:  # which is passed on as it is
        assert chunks[-1].choices[0].finish_reason == reason


def test_what_the_model_says_is_wrong_has_the_status_that_it_names(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.UnprocessableEntityError, match="too hot") as caught:
            ask(client, "error", stream=stream)
        assert caught.value.code == "hot"
    with pytest.raises(openai.InternalServerError, match="too hot"):
        ask(client, "late error")
    stream = ask(client, "late error", stream=True)
    with pytest.raises(openai.APIError, match="too hot"):
        list(stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", ["role alone", "unknown keys", "tuple", "list", "number"])
def test_what_no_row_lists_is_invalid_output(client: openai.OpenAI, case: str, stream: bool) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, case, stream=stream)
    assert caught.value.code == "invalid_model_output"


def test_a_response_passes_as_it_is(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="rows", messages=[{"role": "user", "content": "by hand"}]
    )
    assert (raw.http_response.status_code, raw.http_response.text) == (207, '{"mine":true}')


def test_a_method_that_takes_the_request_reads_its_inputs_there(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "asker", "extra_headers": {"x-mine": "seen"}}
    answer = client.chat.completions.create(messages=[{"role": "user", "content": "é"}], stop="x", **asked)
    assert answer.choices[0].message.content == "seen é ['x']"
    assert client.responses.create(input="é", extra_body={"stop": ["y"]}, **asked).output_text == "seen é ['y']"
    assert [choice.text for choice in client.completions.create(prompt=["a", "b"], **asked).choices] == ["True", "True"]
