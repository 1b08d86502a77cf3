"""Completions, judged by the official SDK: the text of every choice of every prompt, streamed or whole."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion

from gateway import field_copies
from gateway.dialects.base import Context, Dialect, Prepared
from gateway.dialects.openai.completions import CompletionsDialect, CompletionsEncoder
from gateway.errors import BadRequest, HTTPError, InvalidOutput, TooLarge
from gateway.spec import Capabilities
from gateway.wire.values import decode
from gateway.worker.bodies.results import pack

from .sdk import HEX, _client, events

OWN, CHAT = "completions", "chat_completions"
USAGE = {"stream_options": {"include_usage": True}}
read = CompletionsDialect().read


def runs_of(method: str = OWN, *, supports_n: bool = False, **fields: Any) -> list[dict[str, Any]]:
    prepared = read({"model": "m", "prompt": "once", **fields}, method)
    return CompletionsDialect().calls(prepared, Capabilities(supports_n=supports_n))


def encoder(*, method: str = OWN, supports_n: bool = False, **fields: Any) -> CompletionsEncoder:
    dialect = CompletionsDialect()
    prepared = dialect.read({"model": "m", "prompt": "once", **fields}, method)
    capabilities = Capabilities(supports_n=supports_n)
    runs = len(dialect.calls(prepared, capabilities))
    return dialect.encoder(prepared, Context("m", HEX, 1795290277, runs, capabilities))


def encode_stream(batches: Iterable[tuple[int, Sequence[Any]]], **fields: Any) -> bytes:
    under_way = encoder(stream=True, **fields)
    out = [under_way.start()]
    for run, items in batches:
        out.append(under_way.feed([decode(pack(item)) for item in items], run))
        if under_way.failure is not None:
            raise under_way.failure
    return b"".join((*out, under_way.finish()))


def encode_whole(batches: Iterable[tuple[int, Sequence[Any]]], **fields: Any) -> bytes:
    under_way = encoder(**fields)
    for run, items in batches:
        assert under_way.feed([decode(pack(item)) for item in items], run) == b""
    return under_way.whole()[0]


def parse(body: bytes) -> Completion:
    json.loads(body, parse_constant=lambda name: 1 / 0)  # strict JSON
    with _client(body, "application/json") as client:
        return client.completions.create(model="m", prompt="once")


def chunks(stream: bytes) -> list[Completion]:
    with _client(stream, "text/event-stream; charset=utf-8") as client:
        return list(client.completions.create(model="m", prompt="once", stream=True))


def accumulate(stream: bytes) -> dict[int, dict[str, Any]]:
    """By choice: its text, its reason, its tokens. What the SDK gives, put together as its users do it."""
    found: dict[int, dict[str, Any]] = {}
    for chunk in chunks(stream):
        for choice in chunk.choices:
            said = found.setdefault(choice.index, {"text": "", "reason": None, "tokens": [], "offsets": []})
            assert said["reason"] is None, "a choice goes on after its end"
            said["text"] += choice.text
            said["reason"] = choice.finish_reason
            if choice.logprobs is not None:
                said["tokens"] += choice.logprobs.tokens or []
                said["offsets"] += choice.logprobs.text_offset or []
    return found


def answer(*items: Any, **fields: Any) -> Completion:
    return parse(encode_whole([(0, items)], **fields))


# ── any answer ───────────────────────────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: not text.startswith(("data:", "event:"))
)


@st.composite
def said(draw: st.DrawFn) -> tuple[str, str, tuple[int, int] | None, list[Any]]:
    """Text, reason, usage of one run, and values that mean them."""
    text, items = "", []
    for piece in draw(st.lists(texts, max_size=4)):
        text += piece
        dress = draw(st.sampled_from(["str", "bytes", "text", "content", "choices", "delta"]))
        items.append(
            {
                "str": piece,
                "bytes": piece.encode(),
                "text": {"text": piece},
                "content": {"content": piece},
                "choices": {"choices": [{"index": 0, "text": piece}]},
                "delta": {"choices": [{"delta": {"content": piece}}]},
            }[dress]
        )
    reason = draw(st.sampled_from(["stop", "length", "content_filter", None]))
    if reason is not None:
        items.append({"choices": [{"text": "", "finish_reason": reason}]})
    usage = draw(st.none() | st.tuples(st.integers(0, 99), st.integers(0, 99)))
    if usage is not None:
        items.append({"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}})
    return text, reason or "stop", usage, items


@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.randoms(use_true_random=False))
def test_every_choice_of_every_prompt_is_whole_however_the_runs_mix(
    data: st.DataObject, prompts: int, n: int, random: Any
) -> None:
    cases = [data.draw(said()) for _ in range(prompts * n)]
    queues = [list(case[3]) for case in cases]
    batches: list[tuple[int, list[Any]]] = []
    while any(queues):
        run = random.choice([run for run, queue in enumerate(queues) if queue])
        size = random.randint(1, 2)
        batches.append((run, queues[run][:size]))
        del queues[run][:size]
    asked: dict[str, Any] = {"prompt": ["word"] * prompts, "n": n}
    whole = parse(encode_whole(batches, **asked))
    stream = encode_stream(batches, **asked, **USAGE)
    found = accumulate(stream)
    for index, (text, reason, _, _) in enumerate(cases):
        choice = whole.choices[index]
        assert (choice.index, choice.text, choice.finish_reason) == (index, text, reason)
        assert (found[index]["text"], found[index]["reason"]) == (text, reason)
    usage = chunks(stream)[-1].usage
    assert whole.usage is not None and usage == whole.usage
    counts = [case[2] for case in cases]
    if None not in counts:
        assert usage.completion_tokens == sum(count[1] for count in counts if count)
        assert usage.prompt_tokens == sum(counts[prompt * n][0] for prompt in range(prompts))  # type: ignore[index]


@given(st.lists(texts, min_size=1, max_size=5), st.data())
def test_a_failure_anywhere_never_looks_like_an_end(pieces: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(pieces)))
    items = [*pieces[:at], {"error": {"message": "broken", "code": "c"}}, *pieces[at:]]
    under_way = encoder(stream=True)
    try:
        sent = under_way.feed(items)
    except HTTPError:
        assert at == 0
        return
    assert under_way.failure is not None
    with pytest.raises(HTTPError):
        under_way.finish()
    stream = sent + under_way.fail(under_way.failure)
    assert b"[DONE]" not in stream and b'"finish_reason":"' not in stream
    with pytest.raises(openai.APIError, match="broken"):
        accumulate(stream)


# ── what each call gets ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("prompt", "each"),
    [
        ("a", ["a"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_each_prompt_is_a_call_of_its_own(prompt: Any, each: list[Any]) -> None:
    assert [run["prompt"] for run in runs_of(prompt=prompt)] == each


def test_n_choices_are_n_calls_of_each_prompt_with_seeds_of_their_own() -> None:
    runs = runs_of(prompt=["a", "b"], n=2, seed=7, best_of=2)
    assert [(run["prompt"], run["n"], run["seed"]) for run in runs] == [
        ("a", 1, 7),
        ("a", 1, 8),
        ("b", 1, 7),
        ("b", 1, 8),
    ]
    assert not any("best_of" in run for run in runs)


def test_a_class_that_supports_n_is_called_once_a_prompt() -> None:
    runs = runs_of(prompt=["a", "b"], n=2, supports_n=True, best_of=3)
    assert [(run["prompt"], run["n"], run["best_of"]) for run in runs] == [("a", 2, 3), ("b", 2, 3)]
    lists = [(0, [["a", {"text": "b"}]]), (1, [["c", "d"]])]
    asked: dict[str, Any] = {"prompt": ["x", "y"], "n": 2, "supports_n": True}
    assert [choice.text for choice in parse(encode_whole(lists, **asked)).choices] == ["a", "b", "c", "d"]
    assert [said["text"] for _, said in sorted(accumulate(encode_stream(lists, **asked)).items())] == list("abcd")


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ({"prompt": ["a"] * 128}, "128 prompts"),
        ({"prompt": ["a"] * 32, "n": 4}, "128 choices"),
        ({"prompt": ["a"] * 128, "supports_n": True}, "128 prompts"),
    ],
)
def test_many_fields_are_not_copied_for_each_of_many_prompts(
    asked: dict[str, Any], parts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(field_copies, "MOST_COPIES", 128 * 103)
    own = {**asked, **{f"f{number}": 1 for number in range(100)}}
    assert len(runs_of(**own)) == 128
    with pytest.raises(TooLarge, match=rf"for each of its {parts}, together more than 13184; leave out"):
        runs_of(**own, more=1, again=2)


def test_many_fields_are_not_copied_for_each_of_many_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_copies, "MOST_COPIES", 16 * 3)
    chat = Prepared("m", {"messages": [], "a": 1, "b": 2}, n=16)
    assert len(Dialect().calls(chat, Capabilities())) == 16
    chat.inputs["c"] = 3
    with pytest.raises(TooLarge, match="4 fields for each of its 16 choices, together more than 48; leave out"):
        Dialect().calls(chat, Capabilities())
    assert len(Dialect().calls(chat, Capabilities(supports_n=True))) == 1


def test_everything_else_reaches_the_method_as_it_was_sent() -> None:
    fields = {"suffix": "end", "echo": True, "logprobs": 3, "top_k": 5, "user": "me", "max_tokens": 0, "stop": "x"}
    [run] = runs_of(**fields, temperature=None)
    assert run == {
        **fields,
        "model": "m",
        "prompt": "once",
        "stop": ["x"],
        "max_completion_tokens": 0,
    }


def test_a_chat_gets_each_prompt_as_a_message() -> None:
    runs = runs_of(CHAT, prompt=["a", "b"], max_tokens=5, echo=False, suffix="", best_of=1)
    limits = {"max_tokens": 5, "max_completion_tokens": 5}
    assert runs == [{"model": "m", "messages": [{"role": "user", "content": text}], **limits} for text in ("a", "b")]


MISSING, TYPE, VALUE, UNSUPPORTED = "missing_required_parameter", "invalid_type", "invalid_value", "unsupported_value"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"prompt": None}, MISSING, "prompt"),
        ({"prompt": 5}, TYPE, "prompt"),
        ({"prompt": []}, VALUE, "prompt"),
        ({"prompt": ["a", 1]}, TYPE, "prompt[1]"),
        ({"prompt": [1, "a"]}, TYPE, "prompt"),
        ({"prompt": [1, None]}, TYPE, "prompt"),
        ({"prompt": [True]}, TYPE, "prompt[0]"),
        ({"prompt": [[]]}, VALUE, "prompt[0]"),
        ({"prompt": [[1], ["a"]]}, TYPE, "prompt[1]"),
        ({"prompt": [[1], "a"]}, TYPE, "prompt[1]"),
        ({"prompt": [[-1]]}, VALUE, "prompt[0]"),
        ({"prompt": ["a"] * 129}, VALUE, "prompt"),
        ({"prompt": ["a"] * 16, "n": 9}, VALUE, "prompt"),
        ({"n": 17}, VALUE, "n"),
        ({"n": "2"}, TYPE, "n"),
        ({"model": 5}, TYPE, "model"),
        ({"stream": 1}, TYPE, "stream"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, TYPE, "stream_options.include_usage"),
        ({"max_tokens": -1}, VALUE, "max_tokens"),
        ({"temperature": "hot"}, TYPE, "temperature"),
        ({"logprobs": True}, TYPE, "logprobs"),
        ({"logprobs": 21}, VALUE, "logprobs"),
        ({"echo": "yes"}, TYPE, "echo"),
        ({"suffix": 5}, TYPE, "suffix"),
        ({"best_of": 0}, VALUE, "best_of"),
        ({"best_of": 1, "n": 2}, VALUE, "best_of"),
        ({"best_of": 2, "stream": True}, UNSUPPORTED, "best_of"),
        ({"best_of": 3, "n": 2}, UNSUPPORTED, "best_of"),
        ({"stop": 5}, TYPE, "stop"),
        ({"logit_bias": {"5": "x"}}, TYPE, "logit_bias.5"),
    ],
)
def test_a_request_is_refused_with_code_and_path(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        runs_of(**fields)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 0}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1], [2]]}, "prompt"),
    ],
)
def test_what_a_chat_has_no_word_for_is_refused_where_it_answers(fields: dict[str, Any], param: str) -> None:
    runs_of(**fields)
    with pytest.raises(BadRequest) as caught:
        runs_of(CHAT, **fields)
    assert (caught.value.code, caught.value.param) == (UNSUPPORTED, param)


# ── the answer ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_whole_object_has_every_field() -> None:
    body = json.loads(encode_whole([(0, ["hi"])]))
    usage = body.pop("usage")
    assert body == {
        "id": f"cmpl-{HEX}",
        "object": "text_completion",
        "created": 1795290277,
        "model": "m",
        "system_fingerprint": None,
        "choices": [{"index": 0, "text": "hi", "logprobs": None, "finish_reason": "stop"}],
    }
    assert usage == {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def test_pieces_have_no_reason_and_the_last_has_no_text() -> None:
    *pieces, last, done = events(encode_stream([(0, ["a", {"text": "b"}, ""])]))
    assert [piece["choices"][0] for piece in pieces] == [
        {"index": 0, "text": text, "logprobs": None, "finish_reason": None} for text in "ab"
    ]
    assert last["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]
    assert done == "[DONE]"
    assert {(e["id"], e["object"], e["created"]) for e in (*pieces, last)} == {
        (f"cmpl-{HEX}", "text_completion", 1795290277)
    }


def test_usage_comes_last_without_choices_and_only_when_asked_for() -> None:
    *others, last, _ = events(encode_stream([(0, ["a"])], **USAGE))
    assert last["choices"] == [] and last["usage"]["total_tokens"] == 2
    assert all(event["usage"] is None for event in others)
    assert not any("usage" in event for event in events(encode_stream([(0, ["a"])]))[:-1])


def test_the_methods_own_object_passes_and_what_it_lacks_is_filled_in() -> None:
    own = {
        "id": "cmpl-own",
        "created": 5,
        "model": "up",
        "my": 1,
        "choices": [{"text": "a", "finish_reason": "length"}],
    }
    body = json.loads(encode_whole([(0, [own])]))
    assert (body["id"], body["created"], body["model"], body["my"]) == ("cmpl-own", 5, "m", 1)
    assert body["choices"][0] == {"index": 0, "text": "a", "logprobs": None, "finish_reason": "length"}
    assert body["usage"]["total_tokens"] > 0


def test_an_answer_of_chat_becomes_one_of_completions() -> None:
    own = {"id": "chatcmpl-own", "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
    completion = answer(own, {"reasoning_content": "hm"}, {"refusal": "b"}, method=CHAT)
    assert (completion.id, completion.choices[0].text) == (f"cmpl-{HEX}", "ab")


def test_sse_of_a_chat_is_read_as_its_chunks() -> None:
    raw = ['data: {"choices":[{"delta":{"content":"a"}}]}\n\n', "data: [DONE]\n\n"]
    assert accumulate(encode_stream([(0, raw)], method=CHAT))[0]["text"] == "a"
    assert answer(*raw, method=CHAT).choices[0].text == "a"


def test_only_the_reasons_of_completions_are_given() -> None:
    assert answer({"text": "a", "finish_reason": "tool_calls"}).choices[0].finish_reason == "stop"


def test_usage_is_the_sum_over_prompts_and_n_choices_count_their_prompt_once() -> None:
    def counted(completion: int) -> list[Any]:
        return [{"text": "a", "usage": {"prompt_tokens": 3, "completion_tokens": completion}}]

    asked: dict[str, Any] = {"prompt": ["x", "y"], "n": 2}
    usage = parse(encode_whole([(run, counted(run)) for run in range(4)], **asked)).usage
    assert usage is not None and (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (6, 6, 12)


@pytest.mark.parametrize("value", [{"tool_calls": [{"name": "f"}]}, {"score": 1}, 5, ["a", "b"], {"text": 5}])
def test_what_is_no_text_is_invalid(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        answer(value)


# ── logprobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

LEGACY = {
    "tokens": ["a", "b"],
    "token_logprobs": [None, -0.5],
    "top_logprobs": [None, {"b": -0.5, "c": -1.5}],
    "text_offset": [0, 1],
}


@pytest.mark.parametrize(
    "value", [{"text": "ab", "logprobs": LEGACY}, {"choices": [{"text": "ab", "logprobs": LEGACY}]}]
)
def test_logprobs_in_the_form_of_completions_pass_through(value: Any) -> None:
    body = json.loads(encode_whole([(0, [value])]))
    assert body["choices"][0]["logprobs"] == LEGACY
    first, *_ = events(encode_stream([(0, [value])]))
    assert (first["choices"][0]["text"], first["choices"][0]["logprobs"]) == ("ab", LEGACY)


def test_a_first_token_without_a_logprob_alone_has_its_place_among_the_alternatives() -> None:
    alone = {"tokens": ["a"], "token_logprobs": [None], "top_logprobs": [None], "text_offset": [0]}
    of_chat = {"content": [{"token": "a", "bytes": [97], "logprob": None, "top_logprobs": []}]}
    for value in (alone, of_chat):
        assert json.loads(encode_whole([(0, [{"text": "a", "logprobs": value}])]))["choices"][0]["logprobs"] == alone
        first, *_ = events(encode_stream([(0, [{"text": "a", "logprobs": value}, "b"])]))
        assert first["choices"][0]["logprobs"] == alone


def test_without_alternatives_and_offsets_they_are_null_and_counted() -> None:
    value = {"text": "ab", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1, -2]}}
    found = json.loads(encode_whole([(0, [value])]))["choices"][0]["logprobs"]
    assert found == {"tokens": ["a", "b"], "token_logprobs": [-1, -2], "top_logprobs": None, "text_offset": [0, 1]}


def test_logprobs_in_the_form_of_chat_become_those_of_completions() -> None:
    def token(written: bytes, logprob: float | None, *top: tuple[str, float]) -> dict[str, Any]:
        others = [{"token": other, "logprob": number} for other, number in top]
        text = written.decode("utf-8", "replace")
        return {"token": text, "bytes": list(written), "logprob": logprob, "top_logprobs": others}

    items = [
        {"content": "é", "logprobs": {"content": [token(b"\xc3", None), token(b"\xa9", -0.5, ("x", -0.1))]}},
        {"content": "b", "logprobs": {"content": [token(b"b", -0.2, ("b", -0.2), ("c", -3.0))]}},
    ]
    wanted = {
        "tokens": ["\ufffd", "\ufffd", "b"],
        "token_logprobs": [None, -0.5, -0.2],
        "top_logprobs": [None, {"x": -0.1, "\ufffd": -0.5}, {"b": -0.2, "c": -3.0}],
        "text_offset": [0, 0, 1],
    }
    assert json.loads(encode_whole([(0, items)]))["choices"][0]["logprobs"] == wanted
    found = accumulate(encode_stream([(0, items)]))[0]
    assert (found["tokens"], found["offsets"]) == (wanted["tokens"], wanted["text_offset"])


def test_logprobs_without_a_text_wait_for_the_next_or_for_the_end() -> None:
    scored = {"logprobs": {"tokens": ["a"], "token_logprobs": [-1.0]}}
    stream = events(encode_stream([(0, [scored, "a"])]))
    assert (
        sum(len(event["choices"][0]["logprobs"]["tokens"]) for event in stream[:-1] if event["choices"][0]["logprobs"])
        == 1
    )


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["a"]},
        {"tokens": "a", "token_logprobs": [1]},
        {"tokens": ["a"], "token_logprobs": [-1, -2]},
        {"tokens": ["a"], "token_logprobs": ["x"]},
        {"tokens": [5], "token_logprobs": [-1]},
        {"tokens": ["a"], "token_logprobs": [float("-inf")]},
        {"content": ["a"]},
        {"content": [{"token": "a", "logprob": -1, "top_logprobs": 5}]},
        {"content": [{"token": "a", "logprob": -1, "top_logprobs": ["b"]}]},
    ],
)
def test_logprobs_that_make_no_sense_are_invalid(logprobs: Any) -> None:
    for encode in (encode_whole, partial(encode_stream)):
        with pytest.raises(InvalidOutput):
            encode([(0, [{"text": "a", "logprobs": logprobs}])])


def test_prompts_are_asked_once_for_all_of_their_choices_and_never_compared() -> None:
    prompts = [[*range(1000, 21_000), number] for number in range(64)]
    fields: dict[str, Any] = {"prompt": prompts, "n": 2}
    began = time.process_time()
    asked = encoder(**fields).uncounted(runs_of(**fields))
    assert [asked[f"prompt {number}"]["prompt"] for number in range(64)] == prompts
    assert time.process_time() - began < 1.5
    assert sum(name.startswith("prompt") for name in asked) == 64
