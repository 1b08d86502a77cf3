"""Texts as token ids and back, in vLLM's shape."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from gateway.dialects.base import Context
from gateway.dialects.scoring.tokenize import DetokenizeDialect, TokenizeDialect, TokenizerInfoDialect
from gateway.errors import BadRequest, InvalidOutput
from gateway.spec import Capabilities

from .values import answered

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    "value",
    [[5, 0, 70000], numpy.array([5, 0, 70000]), {"tokens": [5, 0, 70000]}, {"tokens": (5, 0, 70000), "count": 3}],
)
def test_every_documented_shape_is_the_same_answer(value: Any) -> None:
    body, _ = answered(TokenizeDialect(), {"prompt": "Hello"}, value)
    assert body == {"count": 3, "max_model_len": None, "tokens": [5, 0, 70000], "token_strs": None}


def test_a_small_array_holds_whole_numbers() -> None:
    body, _ = answered(TokenizeDialect(), {"prompt": "Hello"}, numpy.array([5, 0, 255], dtype="uint8"))
    assert body["tokens"] == [5, 0, 255] and type(body["tokens"][0]) is int


def test_token_strings_are_there_when_they_were_asked_for() -> None:
    value = {"tokens": [1, 2], "token_strs": ["He", "llo"], "max_model_len": 8}
    body, _ = answered(TokenizeDialect(), {"prompt": "Hello", "return_token_strs": True}, value)
    assert (body["token_strs"], body["max_model_len"]) == (["He", "llo"], 8)
    assert answered(TokenizeDialect(), {"prompt": "Hello"}, value)[0]["token_strs"] is None


def test_the_length_that_the_class_declares_is_told() -> None:
    dialect = TokenizeDialect()
    context = Context("m", "0" * 32, 1, capabilities=Capabilities(max_model_len=512))
    encoder = dialect.encoder(dialect.read({"prompt": "a"}, "tokenize"), context)
    encoder.feed([[1]])
    assert encoder.whole()[0] == b'{"count":1,"max_model_len":512,"tokens":[1],"token_strs":null}'


def test_defaults_are_those_of_vllm() -> None:
    prompt = TokenizeDialect().read({"prompt": ""}, "tokenize").inputs
    assert prompt == {"prompt": "", "add_special_tokens": True, "return_token_strs": False}
    chat = TokenizeDialect().read({"messages": HELLO}, "tokenize").inputs
    assert chat == {
        "messages": HELLO,
        "add_generation_prompt": True,
        "add_special_tokens": False,
        "return_token_strs": False,
    }


def test_special_tokens_have_llama_cpps_name_too() -> None:
    for sent in ({"prompt": "a", "add_special": False}, {"messages": HELLO, "add_special": True}):
        inputs = TokenizeDialect().read(sent, "tokenize").inputs
        assert inputs["add_special_tokens"] is sent["add_special"]


@pytest.mark.parametrize(
    ("dialect", "body", "meant"),
    [
        (TokenizeDialect(), {"prompt": "a", "returnTokenStrs": True}, "return_token_strs"),
        (DetokenizeDialect(), {"tokens": [1], "skipSpecialTokens": True}, "skip_special_tokens"),
        (DetokenizeDialect(), {"tokens": [1], "skip-special-tokens": True}, "skip_special_tokens"),
    ],
)
def test_another_spelling_of_a_field_is_told_of_the_field(dialect: Any, body: dict[str, Any], meant: str) -> None:
    with pytest.raises(BadRequest, match=f"did you mean {meant}") as caught:
        dialect.read(body, "")
    assert caught.value.code == "unsupported_value" and caught.value.param in body


def test_the_legacy_words_for_tools_are_tools_as_in_chat() -> None:
    asked = {"messages": HELLO, "functions": [{"name": "f"}], "function_call": {"name": "f"}}
    inputs = TokenizeDialect().read(asked, "tokenize").inputs
    assert inputs["tools"] == [{"type": "function", "function": {"name": "f"}}] and "functions" not in inputs
    assert inputs["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert (
        TokenizeDialect().read({"messages": HELLO, "tool_choice": "any"}, "tokenize").inputs["tool_choice"]
        == "required"
    )


def test_a_last_message_is_continued_in_place_of_a_new_one() -> None:
    inputs = TokenizeDialect().read({"messages": HELLO, "continue_final_message": True}, "tokenize").inputs
    assert (inputs["continue_final_message"], inputs["add_generation_prompt"]) == (True, False)
    for mark in ("prefix", "partial"):
        inputs = TokenizeDialect().read({"messages": [{**HELLO[-1], mark: True}]}, "tokenize").inputs
        assert inputs["add_generation_prompt"] is False


@pytest.mark.parametrize("value", [None, "Hello", 5, {}, {"ids": [1]}, [1.5], ["a"], {"tokens": None}])
def test_what_are_no_token_ids_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        answered(TokenizeDialect(), {"prompt": "Hello"}, value)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "prompt", "missing_required_parameter"),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"content": "a"}]}, "messages[0].role", "missing_required_parameter"),
        ({"prompt": "a", "messages": HELLO}, "messages", "invalid_value"),
        ({"prompt": "a", "add_special_tokens": "no"}, "add_special_tokens", "invalid_type"),
        (
            {"messages": HELLO, "continue_final_message": True, "add_generation_prompt": True},
            "add_generation_prompt",
            "invalid_value",
        ),
    ],
)
def test_a_request_that_makes_no_sense_names_the_field(body: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        TokenizeDialect().read(body, "tokenize")
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize("value", ["Hello", {"prompt": "Hello"}, {"text": "Hello"}])
def test_token_ids_become_a_text(value: Any) -> None:
    assert answered(DetokenizeDialect(), {"tokens": [1, 2]}, value)[0] == {"prompt": "Hello"}


def test_no_tokens_are_the_empty_text() -> None:
    assert answered(DetokenizeDialect(), {"tokens": []}, "")[0] == {"prompt": ""}


@pytest.mark.parametrize("value", [None, 5, ["Hello"], {"string": "Hello"}])
def test_what_is_no_text_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        answered(DetokenizeDialect(), {"tokens": [1]}, value)


@pytest.mark.parametrize("tokens", [None, "1", [1, "2"], [1, True], [-1], [1.0]])
def test_tokens_are_whole_numbers(tokens: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        DetokenizeDialect().read({"tokens": tokens}, "detokenize")
    assert str(caught.value.param).startswith("tokens")


def test_what_a_tokenizer_is_has_a_class_at_least() -> None:
    told = {"tokenizer_class": "Letters", "eos_token": "<end>", "bos_token": None}
    assert answered(TokenizerInfoDialect(), {}, told)[0] == told
    for value in (None, "Letters", {}, {"eos_token": "<end>"}):
        with pytest.raises(InvalidOutput):
            answered(TokenizerInfoDialect(), {}, value)
