"""The language model of `models/tiny-chat`, loaded as a worker does it, calls functions and thinks on both engines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf_models import TINY, loaded, words_of_tiny_chat, write

from gateway import BadRequest

pytest.importorskip("transformers")

EXAMPLES = [json.loads(line) for line in (TINY / "examples.jsonl").read_text().splitlines()]
TOOLS = next(example["tools"] for example in EXAMPLES if len(example.get("tools", ())) == 3)
WEATHER = [{"role": "user", "content": "What is the weather in Riga?"}]
TWO = [{"role": "user", "content": "What is the weather in Canberra and Ankara?"}]
SUM = [{"role": "user", "content": "What is 4 + 7?"}]
THINK = {"chat_template_kwargs": {"enable_thinking": True}}


@pytest.fixture(scope="module", params=["torch", "llamacpp"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The checkpoint on torch, and the same weights as a GGUF file on llama.cpp."""
    place = TINY
    if request.param == "llamacpp":
        pytest.importorskip("xllamacpp")
        place = tmp_path_factory.mktemp("tiny")
        write(place / "tiny.gguf")
    with words_of_tiny_chat(), loaded(place, request.param) as model:
        yield model


def is_torch(model: Any) -> bool:
    return "transformers" in type(model).__module__


class Answer:
    """What the events of one answer add up to."""

    def __init__(self, events: list[Any]) -> None:
        self.events, self.ending = events[:-1], events[-1]
        self.text, self.thought, self.logprobs = "", "", []
        calls: dict[int, list[str]] = {}
        for event in self.events:
            event = {"content": event} if isinstance(event, str) else event
            self.text += event.get("content", "")
            self.thought += event.get("reasoning_content", "")
            self.logprobs += event.get("logprobs", {}).get("content", [])
            for call in event.get("tool_calls", ()):
                function = call["function"]
                calls.setdefault(call["index"], [function.get("name", "")]).append(function["arguments"])
        self.calls = [(name, "".join(parts)) for name, *parts in calls.values()]
        self.reason, self.usage = self.ending["finish_reason"], self.ending["usage"]

    def __eq__(self, other: object) -> bool:
        parts = ("text", "thought", "calls", "reason", "logprobs")
        return isinstance(other, Answer) and all(getattr(self, part) == getattr(other, part) for part in parts)


async def collect(items: Any) -> Answer:
    return Answer([item async for item in items])


def chat(model: Any, messages: Any, **fields: Any) -> Answer:
    return asyncio.run(collect(model.chat_completions({"messages": messages, "max_tokens": 200, **fields})))


def complete(model: Any, prompt: Any, **fields: Any) -> Answer:
    return asyncio.run(collect(model.completions({"prompt": prompt, "max_tokens": 40, **fields})))


def refused(model: Any, messages: Any, **fields: Any) -> tuple[str | None, str | None]:
    with pytest.raises(BadRequest) as caught:
        chat(model, messages, **fields)
    return caught.value.code, caught.value.param


def expected(example: dict[str, Any]) -> tuple[str, str, list[tuple[str, Any]]]:
    """Thought, text and calls of an example's answer, taken apart by other means."""
    thought, _, rest = example["answer"].rpartition("</think>")
    text, *calls = rest.split("<tool_call>")
    read = [json.loads(call.partition("</tool_call>")[0]) for call in calls]
    return thought.removeprefix("<think>").strip(), text.strip(), [(call["name"], call["arguments"]) for call in read]


# ── calls and thoughts ───────────────────────────────────────────────────────────────────────────────────────────────


def test_every_example_comes_out_as_thought_text_and_calls_all_at_once(model: Any) -> None:
    async def run() -> list[Answer]:
        requests = (
            {
                "messages": example["messages"],
                "tools": example.get("tools"),
                "chat_template_kwargs": {"enable_thinking": example.get("enable_thinking", False)},
            }
            for example in EXAMPLES
        )
        return await asyncio.gather(*(collect(model.chat_completions(inputs)) for inputs in requests))

    for example, answer in zip(EXAMPLES, asyncio.run(run()), strict=True):
        calls = [(name, json.loads(arguments)) for name, arguments in answer.calls]
        assert (answer.thought, answer.text, calls) == expected(example)
        assert answer.reason == ("tool_calls" if calls else "stop")
        assert (answer.usage["completion_tokens_details"]["reasoning_tokens"] > 0) == bool(answer.thought)


def test_arguments_come_as_they_are_written(model: Any) -> None:
    events = chat(model, WEATHER, tools=TOOLS).events
    [first, *others] = [event["tool_calls"][0] for event in events]
    assert first["function"] == {"name": "get_weather", "arguments": ""} and first["id"].startswith("call_")
    assert len(others) > 5 and all(call.keys() == {"index", "function"} for call in others)


def test_a_thought_comes_in_pieces_before_the_answer(model: Any) -> None:
    events = chat(model, SUM, **THINK).events
    kinds = ["thought" if isinstance(event, dict) else "text" for event in events]
    assert kinds == sorted(kinds, reverse=True) and kinds.count("thought") > 3


def test_a_thought_that_was_cut_off_is_no_answer(model: Any) -> None:
    answer = chat(model, SUM, max_tokens=6, **THINK)
    assert answer.thought and "I add 4 and 7.".startswith(answer.thought)
    assert (answer.text, answer.reason) == ("", "length")
    assert answer.usage["completion_tokens_details"]["reasoning_tokens"] == 6


def test_a_call_that_was_cut_off_is_as_far_as_it_came(model: Any) -> None:
    answer = chat(model, WEATHER, tools=TOOLS, max_tokens=20)
    [(name, arguments)] = answer.calls
    assert (name, answer.reason) == ("get_weather", "length") and '{"city": "Riga"}'.startswith(arguments)


def test_a_template_that_has_opened_the_thought_needs_no_tag_in_the_answer(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = model.tokenizer.chat_template
    opened = template.replace("{{- '<think>\\n\\n</think>\\n\\n' if not enable_thinking -}}", "{{- '<think>\\n' -}}")
    assert opened != template
    monkeypatch.setattr(model.tokenizer, "chat_template", opened)
    answer = chat(model, SUM)
    assert (answer.thought, answer.text) == ("I add 4 and 7.", "11")
    forced = chat(model, WEATHER, tools=TOOLS, tool_choice="required")
    assert (forced.thought, forced.text, forced.calls) == ("", "", [("get_weather", '{"city": "Riga"}')])


def test_effort_asks_for_a_thought_unless_the_template_is_told(model: Any) -> None:
    assert chat(model, SUM, reasoning_effort="low").thought == "I add 4 and 7."
    for quiet in ({"reasoning_effort": "none"}, {"reasoning_effort": "minimal"}, {}):
        assert chat(model, SUM, **quiet).thought == ""
    assert chat(model, SUM, reasoning_effort="none", **THINK).thought == "I add 4 and 7."


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("thinking", [{}, THINK])
def test_a_function_that_is_named_is_called_once(model: Any, thinking: dict[str, Any]) -> None:
    for messages in (WEATHER, TWO, SUM):
        answer = chat(model, messages, tools=TOOLS, tool_choice=named("get_time"), **thinking)
        assert [name for name, _ in answer.calls] == ["get_time"]
        assert answer.text == answer.thought == ""
    assert chat(model, WEATHER, tools=TOOLS, tool_choice=named("get_time")).calls == [("get_time", '{"city": "Riga"}')]


def test_a_call_that_is_required_is_one_of_those_offered(model: Any) -> None:
    for messages in (WEATHER, SUM, [{"role": "user", "content": "Hello"}]):
        answer = chat(model, messages, tools=TOOLS, tool_choice="required")
        assert answer.calls and answer.text == ""
        assert answer.calls[0][0] in ("get_weather", "get_time", "add")
    assert chat(model, WEATHER, tools=TOOLS, tool_choice="required").calls == [("get_weather", '{"city": "Riga"}')]


def test_forced_tokens_are_counted_as_the_answers(model: Any) -> None:
    forced, free = (chat(model, WEATHER, tools=TOOLS, tool_choice=choice) for choice in ("required", "auto"))
    assert forced.usage["prompt_tokens"] == free.usage["prompt_tokens"]
    assert forced.usage["completion_tokens"] == free.usage["completion_tokens"]
    short = chat(model, WEATHER, tools=TOOLS, tool_choice="required", max_tokens=3)
    assert (short.usage["completion_tokens"], short.reason) == (3, "length")


def test_two_calls_at_once_are_one_where_that_is_asked_for(model: Any) -> None:
    both = chat(model, TWO, tools=TOOLS)
    assert both.calls == [("get_weather", '{"city": "Canberra"}'), ("get_weather", '{"city": "Ankara"}')]
    one = chat(model, TWO, tools=TOOLS, parallel_tool_calls=False)
    assert (one.calls, one.text, one.reason) == (both.calls[:1], "", "tool_calls")
    assert one.usage["completion_tokens"] < both.usage["completion_tokens"]


def test_tools_that_must_not_be_called_are_not_shown(model: Any) -> None:
    hidden, absent = chat(model, WEATHER, tools=TOOLS, tool_choice="none"), chat(model, WEATHER)
    assert hidden == absent and hidden.text == "I cannot see the weather."
    assert hidden.usage["prompt_tokens"] == absent.usage["prompt_tokens"]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"tool_choice": named("nothing"), "tools": TOOLS}, "invalid_value", "tool_choice"),
        ({"tool_choice": {"type": "function"}, "tools": TOOLS}, "invalid_value", "tool_choice"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": TOOLS}, "unsupported_value", "tool_choice"),
        ({"tool_choice": "maybe", "tools": TOOLS}, "unsupported_value", "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "unsupported_value", "tools[0].type"),
        ({"tools": [*TOOLS, {"type": "function"}]}, "invalid_value", "tools[3].function.name"),
    ],
)
def test_a_choice_that_cannot_be_honoured_is_refused(model: Any, fields: Any, code: str, param: str) -> None:
    assert refused(model, WEATHER, **fields) == (code, param)


@pytest.mark.parametrize(
    ("special", "sign"),
    [(("[TOOL_CALLS]", "[ARGS]"), "[TOOL_CALLS]"), (("<|python_tag|>",), "ipython"), (("<tool_call>",), "<tool_call>")],
)
def test_other_families_are_known_by_their_template_and_their_special_tokens_are_read(
    special: tuple[str, ...],
    sign: str,
    serve: Callable[..., Any],
    make_model: Callable[..., Any],
    make_tokenizer: Callable[..., int],
    tmp_path: Path,
) -> None:
    template = f"{{% if tools %}}{sign}{{% endif %}}{{{{ messages[0].content }}}}"
    make_model(tmp_path, "llama", make_tokenizer(tmp_path, template=template, special=special))
    random = serve(tmp_path)
    function = {"type": "function", "function": {"name": "f"}}
    for choice in ("required", named("f")):  # what it goes on to write is noise
        answer = chat(random, WEATHER, tools=[function], tool_choice=choice, max_tokens=60, parallel_tool_calls=False)
        assert ([name for name, _ in answer.calls], answer.text) == (["f"], "")
    code, param = refused(random, WEATHER, tools=[function], tool_choice=named("g"))
    assert (code, param) == ("invalid_value", "tool_choice")


# ── conversations ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_and_its_result_go_back_and_are_answered(model: Any) -> None:
    events = chat(model, TWO, tools=TOOLS)
    calls = [
        {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for at, (name, arguments) in enumerate(events.calls)
    ]
    results = ['{"weather": "sunny", "degrees": 21}', '{"weather": "cloudy", "degrees": -3}']
    messages = [
        *TWO,
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": f"call_{at}", "content": text} for at, text in enumerate(results)),
    ]
    answer = chat(model, messages, tools=TOOLS)
    assert answer.text == "It is sunny in Canberra, 21 degrees. It is cloudy in Ankara, -3 degrees."
    assert answer.reason == "stop"
    first = model.prompt_ids({"messages": TWO, "tools": TOOLS})
    assert answer.usage["prompt_tokens_details"]["cached_tokens"] > len(first)  # the same text, token for token


def test_a_conversation_of_old_function_calls_is_the_same(model: Any) -> None:
    function = {"name": "get_weather", "arguments": '{"city": "Riga"}'}
    new = [
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    old = [
        {"role": "assistant", "content": None, "function_call": function},
        {"role": "function", "name": "get_weather", "content": "sunny"},
    ]
    prompts = [model.prompt_ids({"messages": [*WEATHER, *turn], "tools": TOOLS}) for turn in (new, old)]
    assert prompts[0] == prompts[1]


def test_templates_get_arguments_as_an_object_and_thoughts_by_either_name(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% for m in messages %}{{ m.reasoning_content }}{{ m.tool_calls[0].function.arguments.items() | list }}"
    monkeypatch.setattr(model.tokenizer, "chat_template", template + "{% endfor %}")
    function = {"name": "f", "arguments": '{"city": "Riga"}'}
    message = {"role": "assistant", "reasoning": "Hm.", "tool_calls": [{"type": "function", "function": function}]}
    assert model.tokenizer.decode(model.prompt_ids({"messages": [message]})) == "Hm.[('city', 'Riga')]"


def test_arguments_that_are_no_json_go_back_as_they_are(model: Any) -> None:
    function = {"name": "get_weather", "arguments": "{oops"}
    message = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    assert '"arguments": {oops}' in model.tokenizer.decode(model.prompt_ids({"messages": [*WEATHER, message]}))


@pytest.mark.parametrize("calls", ["f", [{"type": "function"}], [7]])
def test_what_is_no_call_in_a_message_is_a_bad_request(model: Any, calls: Any) -> None:
    code, param = refused(model, [*WEATHER, {"role": "assistant", "tool_calls": calls}])
    assert code == "invalid_type" and str(param).startswith("messages[1].tool_calls")


# ── the rest of a request ────────────────────────────────────────────────────────────────────────────────────────────


def test_stop_strings_stop_what_is_said_and_nothing_else(model: Any) -> None:
    assert chat(model, SUM, stop=["add"], **THINK).thought == "I add 4 and 7."
    assert chat(model, WEATHER, tools=TOOLS, stop=["Riga"]).calls == [("get_weather", '{"city": "Riga"}')]
    cut = chat(model, [{"role": "user", "content": "Count to 17."}], stop=["nowhere", "4 5"])  # three tokens
    assert (cut.text, cut.reason, cut.ending["stop_sequence"]) == ("1 2 3 ", "stop", "4 5")


def test_logprobs_are_of_the_tokens_that_are_said(model: Any) -> None:
    answer = chat(model, SUM, logprobs=True, top_logprobs=3, **THINK)
    assert (answer.thought, answer.text) == ("I add 4 and 7.", "11")
    assert "".join(entry["token"] for entry in answer.logprobs).strip() == "11"
    for entry in answer.logprobs:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert [len(entry["top_logprobs"]), entry["top_logprobs"][0]["token"]] == [3, entry["token"]]
        assert entry["top_logprobs"][0]["logprob"] == entry["logprob"] <= 0
    cut = chat(model, [{"role": "user", "content": "Count to 17."}], logprobs=True, stop=["4 5"])
    assert "".join(entry["token"] for entry in cut.logprobs) == cut.text
    assert all(entry["top_logprobs"] == [] for entry in cut.logprobs)
    assert chat(model, WEATHER, tools=TOOLS, logprobs=True).logprobs == []


def test_each_request_of_a_mixed_batch_is_answered_by_its_own_fields(model: Any) -> None:
    count = [{"role": "user", "content": "Count to 12."}]
    end = model.tokenizer.get_vocab()["<|im_end|>"]
    requests: list[dict[str, Any]] = [
        {"messages": count},
        {"messages": count, "max_tokens": 5},
        {"messages": count, "stop": [" 7"]},
        {"messages": count, "temperature": 2.0, "seed": 1, "max_tokens": 40},
        {"messages": count, "temperature": 2.0, "seed": 1, "max_tokens": 40, "top_k": 1},
        {"messages": count, "temperature": 2.0, "seed": 1, "max_tokens": 40, "top_p": 0.01},
        {"messages": count, "temperature": 2.0, "seed": 1, "max_tokens": 40, "min_p": 1.0},
        {"messages": count, "frequency_penalty": 2.0, "max_tokens": 40},
        {"messages": count, "presence_penalty": 2.0, "max_tokens": 40},
        {"messages": count, "repetition_penalty": 3.0, "max_tokens": 40},
        {"messages": count, "logit_bias": {str(end): 100}},
        {"messages": count, "logprobs": True, "top_logprobs": 1},
        {"messages": WEATHER, "tools": TOOLS},
        {"messages": WEATHER, "tools": TOOLS, "tool_choice": named("get_time")},
        {"messages": SUM, **THINK},
    ]

    async def together() -> list[Answer]:
        return await asyncio.gather(*(collect(model.chat_completions(inputs)) for inputs in requests))

    alone = [asyncio.run(collect(model.chat_completions(inputs))) for inputs in requests]
    batched = asyncio.run(together())
    for one, other in zip(alone, batched, strict=True):
        for entry, twin in zip(one.logprobs, other.logprobs, strict=True):  # the last bits depend on the batch
            for number, same in zip((entry, *entry["top_logprobs"]), (twin, *twin["top_logprobs"]), strict=True):
                assert number["logprob"] == pytest.approx(same.pop("logprob"), abs=1e-3)
                del number["logprob"]
        assert one == other
    plain, short, stopped, hot, *narrow = batched
    assert plain.text == " ".join(map(str, range(1, 13)))
    assert (short.usage["completion_tokens"], short.reason) == (5, "length")
    assert (stopped.text, stopped.ending["stop_sequence"]) == ("1 2 3 4 5 6", " 7")
    assert hot.text != plain.text
    assert [answer.text for answer in narrow[:3]] == [plain.text] * 3
    assert plain.text not in (narrow[3].text, narrow[5].text)
    assert (narrow[6].text, narrow[6].reason) == ("", "stop")


def test_text_that_looks_like_server_sent_events_is_marked_as_text(model: Any) -> None:
    for text in ("data: x", "event: y", "\n\n", ": x", "id: 1"):
        events = complete(model, text, echo=True, max_tokens=1).events
        assert events[0] == {"content": text}


# ── completions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_prompt_is_continued_as_text_or_as_token_ids(model: Any) -> None:
    ids = model.tokenizer("The capital of France is")["input_ids"]
    for prompt in ("The capital of France is", ids):
        answer = complete(model, prompt)
        assert (answer.text, answer.reason) == (" Paris.", "stop")
        assert answer.usage["prompt_tokens"] == len(ids)
        assert complete(model, prompt, echo=True).text == "The capital of France is Paris."
        assert complete(model, prompt, echo=True, stop=["is", "ris"]).text == "The capital of France is Pa"


def test_a_completion_is_text_whatever_it_looks_like(model: Any) -> None:
    prompt = model.tokenizer.decode(model.prompt_ids({"messages": WEATHER, "tools": TOOLS}))
    answer = complete(model, prompt)
    assert answer.text.startswith("<tool_call>") and answer.calls == [] and answer.reason == "stop"


def scores_prompts(model: Any) -> bool:
    """Whether the engine does; the other one refuses it by name."""
    if not is_torch(model):
        with pytest.raises(BadRequest, match=r"llama\.cpp.*no log probabilities of a prompt") as caught:
            complete(model, "one", echo=True, logprobs=1)
        assert (caught.value.code, caught.value.param) == ("unsupported_value", "logprobs")
    return is_torch(model)


def test_the_prompt_has_logprobs_when_it_is_echoed(model: Any) -> None:
    if not scores_prompts(model):
        return
    prompt = "The capital of France is"
    for _ in range(2):  # also when its tokens are cached
        answer = complete(model, prompt, echo=True, logprobs=2, max_tokens=2)
        first, *others = answer.logprobs
        assert "".join(entry["token"] for entry in answer.logprobs) == answer.text
        assert (first["token"], first["logprob"], first["top_logprobs"]) == ("The", None, [])
        assert all(entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 2 for entry in others)
    silent = complete(model, prompt, logprobs=0, max_tokens=2)
    assert [entry["top_logprobs"] for entry in silent.logprobs] == [[], []]
    assert [entry["logprob"] for entry in silent.logprobs] == pytest.approx(
        [entry["logprob"] for entry in answer.logprobs[-2:]], abs=1e-3
    )


def test_a_completion_has_logprobs_of_every_token_that_is_counted(model: Any) -> None:
    prompt = "The capital of France is"
    echoed = ({"echo": True}, {"echo": True, "max_tokens": 1}) if scores_prompts(model) else ()
    for fields in ({}, {"stop": ["ris"]}, {"max_tokens": 1}, *echoed):
        answer = complete(model, prompt, logprobs=1, **fields)
        counted = answer.usage["completion_tokens"] + ("echo" in fields and answer.usage["prompt_tokens"])
        assert len(answer.logprobs) == counted
    [*_, end] = complete(model, prompt, logprobs=1).logprobs
    assert end["token"] == "<|im_end|>" and end["logprob"] > -1
    if not scores_prompts(model):
        return
    # what lm-eval asks: the likelihood of a text, with one token more, which is the end here
    ended = complete(model, f"{prompt} Paris.", logprobs=1, echo=True, max_tokens=1)
    assert (ended.text, ended.usage["completion_tokens"]) == (f"{prompt} Paris.", 1)
    assert [entry["token"] for entry in ended.logprobs[-2:]] == [".", "<|im_end|>"]


def test_an_answer_of_no_tokens_shows_the_prompt(model: Any) -> None:
    prompt = "The capital of France is"
    scored = complete(model, prompt, echo=True, logprobs=1 if scores_prompts(model) else None, max_tokens=0)
    assert "".join(entry["token"] for entry in scored.logprobs) in (prompt, "")
    assert bool(scored.logprobs) is scores_prompts(model)
    for answer, text in (
        (scored, prompt),
        (complete(model, prompt, echo=True, max_tokens=0), prompt),
        (complete(model, prompt, max_tokens=0), ""),
    ):
        assert (answer.text, answer.reason, answer.usage["completion_tokens"]) == (text, "length", 0)
    assert refused(model, WEATHER, max_tokens=0) == ("invalid_value", "max_tokens")


def test_a_suffix_is_refused(model: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        complete(model, "one", suffix="three")
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "suffix")


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tokens_are_counted_as_they_are_billed(model: Any) -> None:
    fields: dict[str, Any]
    for fields in (
        {},
        {"tools": TOOLS},
        {"enable_thinking": True},
        {"enable_thinking": False},
        {"think": True},
        {"thinking": {"type": "disabled"}},
        {"reasoning": {"enabled": True}},
        {"add_generation_prompt": False},
        {"truncate_prompt_tokens": 3},
        {"truncate_prompt_tokens": 3, "truncation_side": "right"},
    ):
        assert model.count_tokens(WEATHER, **fields) == chat(model, WEATHER, **fields).usage["prompt_tokens"]
    ids = model.tokenizer("The capital of France is")["input_ids"]
    assert model.count_tokens("The capital of France is") == model.count_tokens(ids) == len(ids)
