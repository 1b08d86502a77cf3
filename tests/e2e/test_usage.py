"""Token counts of answers, and where their time went: what a client reads of them from the real command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.testing import Gateway

from .conftest import write_models
from .scripted import GENERATOR, PLAIN
from .test_openai_sdk import ask, metric, script, wait_for

TOKENIZER = '''
class Words:
    """A token for each word, and one around every message."""
    chat_template = "words"
    def encode(self, text, add_special_tokens=False):
        return [len(word) for word in text.split()]
    def decode(self, ids):
        return " ".join("x" * token for token in ids)
    def apply_chat_template(self, messages, tools=None, tokenize=True, add_generation_prompt=False):
        return " ".join(f"<{message['role']}> {message['content']}" for message in messages) + " <assistant>"
'''
LOADS = """
    def load(self):
        self.tokenizer = Words()
"""
COMPLETES = (
    TOKENIZER
    + """
class Model:
    def load(self):
        self.tokenizer = Words()
    def completions(self, inputs):
        yield "you said: "
        yield inputs["prompt"]
"""
)
COUNTS = GENERATOR + "    def count_tokens(self, what):\n        return 40 if isinstance(what, str) else 2\n"
MODELS = {
    "words": TOKENIZER + GENERATOR + LOADS,
    "vectors": TOKENIZER + PLAIN + LOADS,
    "own": COUNTS,
    "silent": PLAIN,
    "completes": COMPLETES,
    "busy": TOKENIZER + GENERATOR + LOADS,
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("usage")
    write_models(root / "models", {name: {"model.py": text} for name, text in MODELS.items()})
    with Gateway(root / "models", cwd=root) as running:
        yield running


def chat(gateway: Gateway, model: str, *steps: Any, **fields: Any) -> tuple[dict[str, str], dict[str, Any]]:
    body = {"model": model, "messages": script(*steps), **fields}
    status, headers, answer = ask(gateway, "POST", "/v1/chat/completions", body)
    assert status == 200, answer
    return headers, json.loads(answer)


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tokenizer_counts_what_the_model_did_not(gateway: Gateway) -> None:
    headers, answer = chat(gateway, "words", "one two ", "three")
    assert answer["usage"] == {"prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9}
    assert "x-gateway-usage" not in headers


def test_half_of_the_counts_may_be_the_models(gateway: Gateway) -> None:
    _, answer = chat(gateway, "words", "one two", {"usage": {"completion_tokens": 77}})
    assert answer["usage"]["completion_tokens"] == 77 and answer["usage"]["prompt_tokens"] > 4
    _, answer = chat(gateway, "words", "one two", {"usage": {"prompt_tokens": 77}})
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (77, 2)


def test_of_n_answers_the_prompt_counts_once(gateway: Gateway) -> None:
    _, answer = chat(gateway, "words", "one two", n=3)
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}


def test_the_classes_own_count_is_asked(gateway: Gateway) -> None:
    headers, answer = chat(gateway, "own", "one")
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 40, "total_tokens": 42}
    assert "x-gateway-usage" not in headers


def test_without_either_the_counts_are_estimates_and_say_so(gateway: Gateway) -> None:
    headers, answer = chat(gateway, "silent", "a" * 40)
    assert answer["usage"]["completion_tokens"] == 10 and headers["x-gateway-usage"] == "estimated"


def test_a_stream_that_is_asked_ends_with_the_tokenizers_counts(client: openai.OpenAI) -> None:
    messages: Any = script("one ", "two")
    stream = client.chat.completions.create(
        model="words", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    usage = list(stream)[-1].usage
    assert usage is not None and (usage.prompt_tokens, usage.completion_tokens) == (5, 2)


def test_a_stream_that_is_not_asked_counts_for_the_metrics(gateway: Gateway, client: openai.OpenAI) -> None:
    def generated() -> float:
        lines = ask(gateway, "GET", "/metrics")[2].decode().splitlines()
        found = [line for line in lines if line.startswith("vllm:generation_tokens_total") and '"words"' in line]
        return float(found[0].split(" ")[1]) if found else 0.0

    before, messages = generated(), script("one ", "two ", "three ", "four")
    list(client.chat.completions.create(model="words", messages=messages, stream=True))
    wait_for(lambda: generated() == before + 4, "four tokens were counted")


def test_embeddings_count_their_inputs(gateway: Gateway) -> None:
    texts = [json.dumps([[[1.0], [2.0]]]), "three more words"]
    status, headers, body = ask(gateway, "POST", "/v1/embeddings", {"model": "vectors", "input": texts})
    assert status == 200, body
    assert json.loads(body)["usage"] == {"prompt_tokens": 5, "total_tokens": 5} and "x-gateway-usage" not in headers


def test_messages_have_the_tokenizers_counts_too(gateway: Gateway) -> None:
    body = {"model": "words", "max_tokens": 9, "messages": script("one two ", "three")}
    answer = json.loads(ask(gateway, "POST", "/v1/messages", body)[2])
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (6, 3)
    counted = json.loads(ask(gateway, "POST", "/v1/messages/count_tokens", body)[2])
    assert counted == {"input_tokens": 6}


def test_of_several_prompts_each_is_counted(gateway: Gateway) -> None:
    body = {"model": "completes", "prompt": ["a", "a b c", "a"]}
    status, headers, answer = ask(gateway, "POST", "/v1/completions", body)
    assert status == 200 and "x-gateway-usage" not in headers
    assert json.loads(answer)["usage"] == {"prompt_tokens": 5, "completion_tokens": 11, "total_tokens": 16}


def test_counting_waits_for_no_slot(gateway: Gateway, client: openai.OpenAI, tmp_path: Path) -> None:
    """The model has one, and a stream holds it."""
    go = tmp_path / "go"
    messages: Any = script("one ", ["wait", str(go)], "two")
    with client.chat.completions.create(model="busy", messages=messages, stream=True) as stream:
        next(iter(stream))
        status, _, body = ask(gateway, "POST", "/tokenize", {"model": "busy", "prompt": "a bb ccc"})
        assert (status, json.loads(body)["tokens"]) == (200, [1, 2, 3])
        assert metric(gateway, "gateway_requests_in_flight", "busy") == 1
        go.touch()


# ── derived ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_completions_with_a_chat_template_answer_chats(gateway: Gateway, client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    answer = client.chat.completions.create(model="completes", messages=messages)
    assert answer.choices[0].message.content == "you said: <user> hello <assistant>"
    assert answer.usage is not None and answer.usage.completion_tokens == 5
    with client.chat.completions.stream(model="completes", messages=messages) as stream:
        assert stream.get_final_completion().choices[0].message.content == "you said: <user> hello <assistant>"
    known = json.loads(ask(gateway, "GET", "/v1/models/completes")[2])["capabilities"]
    assert "/v1/chat/completions" in known["derived"] and "/v1/completions" not in known["derived"]


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

WHOLE = ["queue", "load", "model", "gateway"]


@pytest.mark.parametrize(
    ("path", "body", "parts"),
    [
        ("/models/silent/predict", {"steps": ["a"]}, WHOLE),
        ("/v1/chat/completions", {"model": "silent", "messages": script("a")}, WHOLE),
        ("/v1/embeddings", {"model": "vectors", "input": json.dumps([[[1.0]]])}, [*WHOLE[:3], "count", *WHOLE[3:]]),
    ],
)
def test_a_whole_answer_says_where_its_time_went(gateway: Gateway, path: str, body: Any, parts: list[str]) -> None:
    status, headers, _ = ask(gateway, "POST", path, body)
    told = re.findall(r"(\w+);dur=\d+\.\d(?:, |$)", headers["server-timing"])
    assert status == 200 and told == parts


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/models/words/predict", {"steps": ["a"]}),
        ("/v1/chat/completions", {"model": "words", "messages": script("a"), "stream": True}),
    ],
)
def test_a_stream_says_what_is_known_when_it_begins(gateway: Gateway, path: str, body: Any) -> None:
    status, headers, _ = ask(gateway, "POST", path, body)
    assert status == 200 and re.fullmatch(r"queue;dur=\d+\.\d, load;dur=0\.0", headers["server-timing"])


def test_what_is_no_call_has_no_time_to_tell_of(gateway: Gateway) -> None:
    assert all("server-timing" not in ask(gateway, "GET", path)[1] for path in ("/v1/models", "/livez", "/none"))
