"""Images, judged by the official SDK."""

from __future__ import annotations

import base64
from typing import Any

import httpx2
import openai
import pytest
from openai.types import ImagesResponse

from gateway.dialects.base import Context
from gateway.dialects.openai.images import ImagesDialect
from gateway.errors import BadRequest, HTTPError, InvalidOutput
from gateway.wire.values import decode
from gateway.worker.bodies.results import pack

FILE = b"\x89PNG one"
TEXT = base64.b64encode(FILE).decode()


def encoded(*runs: Any, **fields: Any) -> bytes:
    """The answer when each run of the Model gives one value."""
    dialect = ImagesDialect()
    prepared = dialect.read({"prompt": "a cat", **fields}, "images_generations")
    encoder = dialect.encoder(prepared, Context("m", "0" * 32, 1795290277, len(runs)))
    for run, value in reversed(list(enumerate(runs))):  # they end in any order
        encoder.feed([decode(pack(value))], run)
    return encoder.whole()[0]


def painted(*runs: Any, **fields: Any) -> ImagesResponse:
    body = encoded(*runs, **fields)

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=body)

    transport = httpx2.Client(transport=httpx2.MockTransport(reply))
    with openai.OpenAI(base_url="http://test/v1", api_key="k", http_client=transport) as client:
        return client.images.generate(model="m", prompt="a cat")


@pytest.mark.parametrize(
    "value",
    [FILE, [FILE], {"b64_json": TEXT}, {"b64_json": FILE}, [{"b64_json": TEXT}], {"data": [{"b64_json": TEXT}]}],
)
def test_every_documented_shape_is_the_same_image(value: Any) -> None:
    answer = painted(value)
    assert answer.created == 1795290277 and answer.data is not None
    assert [(image.b64_json, image.url) for image in answer.data] == [(TEXT, None)]
    answer = painted(value, response_format="url", output_format="webp")
    assert answer.data is not None and answer.data[0].url == f"data:image/webp;base64,{TEXT}"


def test_an_address_stays_an_address() -> None:
    answer = painted({"url": "https://pictures.test/1", "revised_prompt": "a grey cat"}, response_format="url")
    assert answer.data is not None
    assert (answer.data[0].url, answer.data[0].revised_prompt) == ("https://pictures.test/1", "a grey cat")
    with pytest.raises(BadRequest, match="URLs") as caught:
        encoded({"url": "https://pictures.test/1"}, response_format="b64_json")
    assert caught.value.code == "unsupported_value"


def test_n_images_come_in_the_order_of_their_runs() -> None:
    answer = painted({"url": "a"}, {"url": "b"}, n=2)
    assert answer.data is not None and [image.url for image in answer.data] == ["a", "b"]
    answer = painted([{"url": "a"}, {"url": "b"}], n=2)  # one run of a class with supports_n
    assert answer.data is not None and [image.url for image in answer.data] == ["a", "b"]


def test_what_the_model_says_about_its_images_is_told() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "input_tokens_details": {}}
    answer = painted({"data": [FILE], "created": 5, "size": "64x64", "usage": usage, "other": 1})
    assert (answer.created, answer.size) == (5, "64x64")
    assert answer.usage is not None and answer.usage.total_tokens == 3


@pytest.mark.parametrize(
    "value", [None, "text", 5, {}, {"image": FILE}, [], [FILE, FILE], {"data": None}, {"b64_json": 5}, {"url": ["a"]}]
)
def test_what_is_no_image_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        encoded(value)


def test_an_error_dict_is_the_models_own_failure() -> None:
    with pytest.raises(HTTPError, match="not that"):
        encoded({"error": {"message": "not that", "status": 400}})


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"size": 512}, "size", "invalid_type"),
        ({"response_format": "png"}, "response_format", "invalid_value"),
        ({"output_format": "gif"}, "output_format", "invalid_value"),
        ({"stream": True}, "stream", "unsupported_value"),
    ],
)
def test_a_request_that_makes_no_sense_names_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ImagesDialect().read({"prompt": "a cat", **fields}, "images_generations")
    assert (caught.value.param, caught.value.code) == (param, code)


def test_nulls_and_the_plain_default_pass() -> None:
    prepared = ImagesDialect().read({"prompt": "a cat", "size": None, "stream": False, "mine": 1}, "")
    assert prepared.inputs == {"prompt": "a cat", "n": 1, "mine": 1}
