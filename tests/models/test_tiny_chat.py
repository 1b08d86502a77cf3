"""The committed tiny-chat checkpoint answers exactly, and its template keeps to the conventions that parsers know."""

import json
from pathlib import Path

import jinja2
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER = Path(__file__).parents[2] / "models" / "tiny-chat"
EXAMPLES = [json.loads(line) for line in (FOLDER / "examples.jsonl").read_text().splitlines()]
PLAIN = "<|im_start|>assistant\n<think>\n\n</think>\n\n"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True).eval()


def render(tokenizer, messages, **options):
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)


def write(model, tokenizer, prompt):
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=320)
    assert output[0, -1] == tokenizer.eos_token_id
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["family"].replace(" ", "-"))
def test_example_is_answered_exactly(model, tokenizer, example):
    options = {key: example[key] for key in ("tools", "enable_thinking") if key in example}
    assert write(model, tokenizer, render(tokenizer, example["messages"], **options)) == example["answer"]


def test_plain_text_is_completed_without_a_template(model, tokenizer):
    assert write(model, tokenizer, "The capital of France is") == " Paris."
    assert write(model, tokenizer, "1 2 3") == " 4 5 6 7 8 9 10"


@given(st.text())
@settings(deadline=None, max_examples=100)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_and_tags_are_single_tokens(tokenizer):
    assert tokenizer.eos_token == "<|im_end|>"
    for token in ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"):
        assert len(tokenizer.encode(token)) == 1
    assert tokenizer.decode(tokenizer.encode("<tool_call><|im_end|>"), skip_special_tokens=True) == "<tool_call>"


def test_thinking_is_off_unless_asked_for(tokenizer):
    hello = [{"role": "user", "content": "Hello"}]
    assert render(tokenizer, hello) == "<|im_start|>user\nHello<|im_end|>\n" + PLAIN
    assert render(tokenizer, hello, enable_thinking=True).endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_a_longer_conversation_begins_with_the_shorter_one(tokenizer):
    for example in EXAMPLES:
        options = {key: example[key] for key in ("tools", "enable_thinking") if key in example}
        answer = {"role": "assistant", "content": example["answer"]}
        if example.get("enable_thinking"):
            thought, answer["content"] = example["answer"].split("\n</think>\n\n")
            answer["reasoning_content"] = thought.removeprefix("<think>\n")
        longer = render(tokenizer, [*example["messages"], answer, {"role": "user", "content": "Hi"}], **options)
        assert longer.startswith(render(tokenizer, example["messages"], **options) + example["answer"])


def test_template_takes_arguments_as_text_and_content_as_parts(tokenizer):
    def conversation(content, arguments, result):
        call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
        return [
            {"role": "user", "content": content},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": result},
        ]

    def parts(text):
        return [{"type": "text", "text": text}]

    objects = conversation("Weather?", {"city": "Paris"}, "sunny")
    texts = conversation(parts("Weather?"), '{"city": "Paris"}', parts("sunny"))
    assert render(tokenizer, texts) == render(tokenizer, objects)
    assert render(tokenizer, objects).endswith(
        '\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>\n" + PLAIN
    )


def test_developer_message_is_the_system_message(tokenizer):
    for role in ("system", "developer"):
        prompt = render(tokenizer, [{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hi"}])
        assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n")


def test_template_refuses_images(tokenizer):
    with pytest.raises(jinja2.TemplateError, match="reads text only"):
        render(tokenizer, [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}])


def test_folder_is_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 6_000_000
