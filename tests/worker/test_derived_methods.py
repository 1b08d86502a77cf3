"""What a class lacks is made of its tokenizer, its `count_tokens` and its `completions`."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.errors import GatewayError, HTTPError
from gateway.spec import ModelSpec
from gateway.worker.loading.derived_methods import derive
from gateway.worker.loading.descriptor import Descriptor, capabilities, describe

ENDPOINTS = frozenset({"chat_completions", "completions", "embeddings", "tokenize", "detokenize", "count_tokens"})
CHAT = {"messages": [{"role": "user", "content": "two words"}]}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


class Letters:
    """A tokenizer with a token for each character, and one in front of a prompt."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [*([1] if add_special_tokens else []), *map(ord, text)]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(token) for token in ids)


class Templated(Letters):
    chat_template = "a template"

    def apply_chat_template(
        self,
        messages: list[dict[str, Any]],
        tools: Any = None,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
    ) -> str:
        lines = [f"{message['role']}:{message['content']};" for message in messages]
        return "".join(
            [f"{len(tools or [])} tools;" if tools else "", *lines, "assistant:" if add_generation_prompt else ""]
        )


class Plain:
    def predict(self, inputs: Any) -> Any:
        return inputs


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec(name="m", target="model:Model", root=Path("/m"), **fields)


def derived(model: Any, **fields: Any) -> Descriptor:
    return derive(model, describe(model, ENDPOINTS), spec(**fields))


def ask(model: Any, method: str, inputs: Any) -> Any:
    found = derived(model).methods[method]
    value = found.function(*found.arguments(inputs, None))
    return asyncio.run(value) if inspect.iscoroutine(value) else value


def with_tokenizer(tokenizer: Any, cls: type = Plain) -> Any:
    model = cls()
    model.tokenizer = tokenizer
    return model


def refused(model: Any, method: str, inputs: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        ask(model, method, inputs)
    return caught.value


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_class_without_a_tokenizer_gets_nothing() -> None:
    assert list(derived(Plain()).methods) == ["predict"]
    assert list(derived(with_tokenizer("just a name")).methods) == ["predict"]


def test_a_tokenizer_counts_and_holds_no_slot() -> None:
    found = derived(with_tokenizer(Letters())).methods
    assert sorted(found) == ["count_tokens", "detokenize", "predict", "tokenize", "tokenizer_info"]
    assert [name for name, method in found.items() if method.needs_slot] == ["predict"]
    assert [name for name, method in found.items() if not method.derived] == ["predict"]


def test_the_gateway_is_told_what_is_derived() -> None:
    model = with_tokenizer(Letters())
    infos = {method.name: method for method in capabilities(model, derived(model)).methods}
    assert infos["count_tokens"].derived and not infos["count_tokens"].needs_slot
    assert not infos["predict"].derived and infos["predict"].needs_slot


@pytest.mark.parametrize(
    ("inputs", "count"),
    [
        ({"prompt": "abc"}, 4),
        ({"text": "abc"}, 3),
        ({"prompt": ["abc", "d"]}, 6),
        ({"text": ["abc", "d"]}, 4),
        ({"prompt": [5, 6, 7]}, 3),
        ({"prompt": [[5, 6], [7]]}, 3),
        (CHAT, len("user:two words;assistant:")),
        ({**CHAT, "tools": TOOLS}, len("1 tools;user:two words;assistant:")),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, len("user:hi;assistant:")),
        ({"messages": [{"role": "developer", "content": "x"}]}, len("system:x;assistant:")),
    ],
)
def test_tokens_of_a_prompt_a_text_or_a_chat(inputs: dict[str, Any], count: int) -> None:
    assert ask(with_tokenizer(Templated()), "count_tokens", inputs) == {"input_tokens": count}


def test_without_a_template_the_texts_of_a_chat_are_counted() -> None:
    messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": [{"type": "text", "text": "c"}]}]
    assert ask(with_tokenizer(Letters()), "count_tokens", {"messages": messages}) == {"input_tokens": 1 + len("ab\nc")}


@pytest.mark.parametrize("inputs", [{}, [], {"prompt": 3}, {"messages": "hi"}, {"prompt": [{}]}])
def test_what_cannot_be_counted_is_refused(inputs: Any) -> None:
    assert refused(with_tokenizer(Letters()), "count_tokens", inputs).status == 400


def test_the_classes_own_count_wins_and_is_asked_for_texts_and_messages() -> None:
    class Model(Plain):
        tokenizer = Letters()

        def __init__(self) -> None:
            self.asked: list[Any] = []

        def count_tokens(self, what: Any) -> int:
            self.asked.append(what)
            return 7

    model = Model()
    assert not derived(model).methods["count_tokens"].derived
    assert ask(model, "count_tokens", {"text": ["a", "b"]}) == {"input_tokens": 14}
    assert ask(model, "count_tokens", {**CHAT, "tools": TOOLS}) == {"input_tokens": 14}
    assert model.asked[:3] == ["a", "b", CHAT["messages"]]
    assert '"name": "f"' in model.asked[3]


def test_an_own_count_may_be_async_and_take_the_tools() -> None:
    class Model(Plain):
        async def count_tokens(self, what: Any, tools: Any = None) -> dict[str, int]:
            return {"input_tokens": len(what) + 10 * len(tools or [])}

    assert ask(Model(), "count_tokens", {**CHAT, "tools": TOOLS}) == {"input_tokens": 11}


@pytest.mark.parametrize("value", [None, "many", -1, 1.5, {"tokens": 3}])
def test_an_own_count_that_gives_no_number_is_the_models_mistake(value: Any) -> None:
    class Model(Plain):
        def count_tokens(self, what: Any) -> Any:
            return value

    assert refused(Model(), "count_tokens", {"text": "a"}).code == "invalid_model_output"


def test_the_models_own_tokenizer_is_not_what_counts() -> None:
    class Counting(Letters):
        used = 0

        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            self.used += 1
            return super().encode(text, add_special_tokens)

    tokenizer = Counting()
    assert ask(with_tokenizer(tokenizer), "count_tokens", {"text": "ab"}) == {"input_tokens": 2}
    assert tokenizer.used == 0


def test_a_tokenizer_that_cannot_be_copied_is_used_itself() -> None:
    class Single(Letters):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("cannot be copied")

    assert ask(with_tokenizer(Single()), "count_tokens", {"text": "ab"}) == {"input_tokens": 2}


def test_a_tokenizer_tells_what_it_is() -> None:
    class Added:
        content = "<end>"

    class Told(Templated):
        def __init__(self) -> None:
            longest = {"model_max_length": 10**30, "add_bos_token": True}
            self.init_kwargs = {**longest, "vocab_file": "vocab.txt", "pad_token": Added()}
            self.special_tokens_map = {"eos_token": "<end>"}
            self.added_tokens_decoder = {7: Added()}

    assert ask(with_tokenizer(Told()), "tokenizer_info", {}) == {
        "tokenizer_class": "Told",
        "add_bos_token": True,
        "bos_token": None,
        "eos_token": "<end>",
        "pad_token": None,
        "chat_template": "a template",
        "added_tokens_decoder": {"7": "<end>"},
    }
    bare = ask(with_tokenizer(Letters()), "tokenizer_info", {})
    assert (bare["tokenizer_class"], bare["eos_token"], bare["chat_template"]) == ("Letters", None, None)


def test_tokenizers_of_other_libraries() -> None:
    class Rust:  # `tokenizers`: an object with ids
        def encode(self, sequence: str, add_special_tokens: bool = True) -> Any:
            return type("Encoding", (), {"ids": [1, 2, 3]})()

        def decode(self, ids: list[int]) -> str:
            return ""

    class Tiktoken:  # refuses text that looks like a special token, unless told
        def encode(self, text: str, *, disallowed_special: Any = "all") -> list[int]:
            if disallowed_special:
                raise ValueError("a special token")
            return [1] * len(text)

        def decode(self, tokens: list[int]) -> str:
            return ""

    assert ask(with_tokenizer(Rust()), "count_tokens", {"prompt": "x"}) == {"input_tokens": 3}
    assert ask(with_tokenizer(Tiktoken()), "count_tokens", {"prompt": "<|end|>"}) == {"input_tokens": 7}


def test_a_tokenizer_that_is_not_there_yet_hurts_nobody() -> None:
    class Model(Plain):
        @property
        def tokenizer(self) -> Any:
            raise RuntimeError("not loaded")

    assert list(derived(Model()).methods) == ["predict"]


# ── tokens and back ──────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=50))
def test_detokenize_gives_back_what_tokenize_took(text: str) -> None:
    model = with_tokenizer(Letters())
    found = ask(model, "tokenize", {"prompt": text, "add_special_tokens": False})
    assert found["count"] == len(found["tokens"]) == len(text)
    assert ask(model, "detokenize", {"tokens": found["tokens"]}) == {"prompt": text}


def test_tokens_have_names_when_they_are_asked_for() -> None:
    found = ask(with_tokenizer(Letters()), "tokenize", {"prompt": "ab", "return_token_strs": True})
    assert found == {"tokens": [1, 97, 98], "count": 3, "token_strs": ["\x01", "a", "b"]}


def test_a_chat_is_tokenized_as_its_template_renders_it() -> None:
    found = ask(with_tokenizer(Templated()), "tokenize", {**CHAT, "add_generation_prompt": False})
    assert ask(with_tokenizer(Templated()), "detokenize", found) == {"prompt": "user:two words;"}


class Continuing(Templated):
    """It can leave the last message open, as Hugging Face's do."""

    def apply_chat_template(self, messages: Any, continue_final_message: bool = False, **options: Any) -> str:
        text = super().apply_chat_template(messages, **options)
        return text.removesuffix(";") if continue_final_message else text


BEGUN = {"messages": [*CHAT["messages"], {"role": "assistant", "content": [{"type": "text", "text": "One"}]}]}


def test_a_last_message_of_the_assistant_is_continued() -> None:
    class Completing:
        tokenizer = Continuing()

        def completions(self, inputs: dict[str, Any]) -> str:
            return f"{sorted(inputs)} {inputs['prompt']}"

    goes_on, wanted = {**BEGUN, "continue_final_message": True}, "user:two words;assistant:One"
    assert ask(Completing(), "count_tokens", goes_on) == {"input_tokens": len(wanted)}
    assert ask(Completing(), "tokenize", goes_on)["tokens"] == list(map(ord, wanted))
    assert ask(Completing(), "chat_completions", goes_on) == f"['prompt'] {wanted}"
    assert ask(Completing(), "chat_completions", BEGUN) == f"['prompt'] {wanted};assistant:"
    for blanks in ("", "\n"):
        begun = [*CHAT["messages"], {"role": "assistant", "content": blanks}]
        empty = {"messages": begun, "continue_final_message": True}
        assert ask(Completing(), "chat_completions", empty) == f"['prompt'] user:two words;assistant:{blanks}"


@pytest.mark.parametrize("mark", ["prefix", "partial"])
def test_a_message_that_says_that_it_goes_on_is_continued(mark: str) -> None:
    [*before, last] = BEGUN["messages"]
    marked = {"messages": [*before, {**last, mark: True}]}
    for method in ("tokenize", "count_tokens"):
        wanted = ask(with_tokenizer(Continuing()), method, {**BEGUN, "continue_final_message": True})
        assert ask(with_tokenizer(Continuing()), method, marked) == wanted


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (CHAT["messages"], "continue_final_message"),
        ([{"role": "assistant", "content": "a", "tool_calls": [{}]}], "messages"),
    ],
)
def test_what_cannot_be_continued_is_refused(messages: Any, param: str) -> None:
    asked = {"messages": messages, "continue_final_message": True}
    for method in ("count_tokens", "tokenize"):
        error = refused(with_tokenizer(Continuing()), method, asked)
        assert (error.status, error.param) == (400, param)
    error = refused(with_tokenizer(Templated()), "tokenize", {**BEGUN, "continue_final_message": True})
    assert (error.status, error.code) == (400, "unsupported_value")


def test_tools_that_may_not_be_called_are_not_in_the_prompt() -> None:
    asked = {**CHAT, "tools": TOOLS, "tool_choice": "none"}
    model = with_tokenizer(Templated())
    assert ask(model, "tokenize", asked) == ask(model, "tokenize", CHAT)
    assert ask(model, "count_tokens", asked) == ask(model, "count_tokens", CHAT)


def test_variables_of_the_template_count() -> None:
    class Shouting(Templated):
        def apply_chat_template(self, messages: Any, shout: bool = False, **options: Any) -> str:
            return super().apply_chat_template(messages, **options) + "!" * shout

    model = with_tokenizer(Shouting())
    plain, loud = (ask(model, "tokenize", {**CHAT, "chat_template_kwargs": {"shout": how}}) for how in (False, True))
    assert loud["tokens"] == [*plain["tokens"], ord("!")]


@pytest.mark.parametrize("name", ["self", "messages", "conversations"])
def test_a_variable_that_stands_in_the_way_of_the_template_is_refused_in_our_words(name: str) -> None:
    asked = {**CHAT, "chat_template_kwargs": {name: 1}}
    with pytest.raises(HTTPError, match=f"^chat_template_kwargs cannot set {name}$") as caught:
        ask(with_tokenizer(Templated()), "tokenize", asked)
    assert (caught.value.status, caught.value.param) == (400, "chat_template_kwargs")


def test_an_own_count_gets_what_it_has_parameters_for() -> None:
    class Counting(Plain):
        def count_tokens(self, value: Any, tool_choice: Any = None, **more: Any) -> int:
            return 1 if tool_choice == "none" and not more else 0

    asked = {**CHAT, "tool_choice": "none", "continue_final_message": True}
    assert ask(Counting(), "count_tokens", asked) == {"input_tokens": 1}


@pytest.mark.parametrize(
    "more", [{"chat_template": "x"}, {"documents": [{}]}, {"truncate_prompt_tokens": 1}, {"with_pieces": True}]
)
def test_a_field_that_a_tokenizer_cannot_honour_is_refused_by_its_name(more: dict[str, Any]) -> None:
    [name] = more
    model = with_tokenizer(Templated())
    for asked in (CHAT, {"prompt": "abc"}):
        error = refused(model, "tokenize", {**asked, **more})
        assert (error.status, error.param, error.code) == (400, name, "unsupported_value")
        nothing = {name: type(more[name])()}
        assert ask(model, "tokenize", {**asked, **nothing}) == ask(model, "tokenize", asked)


def test_an_own_count_may_take_all_that_was_asked() -> None:
    class Counting(Plain):
        def count_tokens(self, value: Any, tools: Any = None, *, inputs: Any = None, **fields: Any) -> int:
            return len(inputs) if value == CHAT["messages"] and not fields else 0

    assert ask(Counting(), "count_tokens", {**CHAT, "chat_template": "x"}) == {"input_tokens": len(CHAT) + 1}


def _of_one(self: Any, inputs: Any) -> int:
    return len(inputs)


def _with_tools(self: Any, messages: Any, tools: Any = None) -> int:
    return len(messages)


def _with_more(self: Any, value: Any, **kwargs: Any) -> int:
    return len(value) + len(kwargs)


def _of_both(self: Any, value: Any, inputs: Any = None) -> int:
    return len(value) + (inputs is not None)


@pytest.mark.parametrize("own", [_of_one, _with_tools, _with_more, _of_both])
def test_an_own_count_is_not_given_what_it_did_not_ask_for(own: Any) -> None:
    model = type("Counting", (Plain,), {"count_tokens": own})()
    assert ask(model, "count_tokens", {**CHAT, "chat_template": "x", "seed": 1}) == {"input_tokens": 1}


def test_special_tokens_are_left_out_of_a_text_where_that_is_asked() -> None:
    class Skipping(Letters):
        def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
            return super().decode([token for token in ids if token != ord("!")] if skip_special_tokens else ids)

    asked = {"tokens": [*map(ord, "a!b")]}
    for said, text in ((None, "a!b"), (False, "a!b"), (True, "ab")):
        found = ask(with_tokenizer(Skipping()), "detokenize", {**asked, "skip_special_tokens": said})
        assert found == {"prompt": text}
    error = refused(with_tokenizer(Letters()), "detokenize", {**asked, "skip_special_tokens": True})
    assert (error.status, error.param, error.code) == (400, "skip_special_tokens", "unsupported_value")


@pytest.mark.parametrize("inputs", [{}, {"tokens": "1"}, {"tokens": [1.5]}, {"tokens": [-1]}, {"tokens": [1 << 80]}])
def test_what_is_no_token_is_refused(inputs: Any) -> None:
    assert refused(with_tokenizer(Letters()), "detokenize", inputs).param == "tokens"


def test_a_helper_of_the_class_with_the_same_name_is_left_alone() -> None:
    class Model(Plain):
        tokenizer = Letters()

        def tokenize(self, text: str, longest: int) -> list[int]:
            return []

    assert derived(Model()).methods["tokenize"].derived


def test_the_classes_own_tokenize_wins() -> None:
    class Model(Plain):
        tokenizer = Letters()

        def tokenize(self, inputs: Any) -> list[int]:
            return [4, 2]

    assert ask(Model(), "tokenize", {"prompt": "x"}) == [4, 2]


# ── chat of completions ──────────────────────────────────────────────────────────────────────────────────────────────


class Completes:
    tokenizer = Templated()

    def completions(self, inputs: Any) -> Any:
        return inputs


def test_completions_and_a_template_make_a_chat() -> None:
    found = derived(Completes()).methods["chat_completions"]
    assert found.derived and found.needs_slot
    request = {**CHAT, "tools": TOOLS, "tool_choice": "auto", "temperature": 0.5, "stream": True}
    assert ask(Completes(), "chat_completions", request) == {
        "prompt": "1 tools;user:two words;assistant:",
        "temperature": 0.5,
        "stream": True,
    }


def test_what_completions_yields_is_the_chats() -> None:
    class Model(Completes):
        def completions(self, inputs: Any) -> Any:
            yield from inputs["prompt"].split(";")

    assert list(ask(Model(), "chat_completions", CHAT)) == ["user:two words", "assistant:"]


def test_the_word_of_completions_for_text_becomes_that_of_chat() -> None:
    class Streams(Completes):
        def completions(self, inputs: Any) -> Any:
            yield {"text": "a", "finish_reason": None}
            return {"usage": {}}

    class Awaits(Completes):
        async def completions(self, inputs: Any) -> Any:
            return {"text": "a"}

    class Later(Completes):
        async def completions(self, inputs: Any) -> Any:
            yield {"text": "a"}
            yield {"choices": [{"text": "b"}]}

    async def collected(stream: Any) -> list[Any]:
        return [item async for item in stream]

    stream = ask(Streams(), "chat_completions", CHAT)
    assert next(stream) == {"content": "a", "finish_reason": None}
    with pytest.raises(StopIteration) as end:
        next(stream)
    assert end.value.value == {"usage": {}}
    assert ask(Awaits(), "chat_completions", CHAT) == {"content": "a"}
    later = asyncio.run(collected(ask(Later(), "chat_completions", CHAT)))
    assert later == [{"content": "a"}, {"choices": [{"text": "b"}]}]


def test_a_stream_of_completions_is_closed_with_the_chats() -> None:
    closed: list[str] = []

    class Model(Completes):
        def completions(self, inputs: Any) -> Any:
            try:
                yield "a"
                yield "b"
            finally:
                closed.append("closed")

    stream = ask(Model(), "chat_completions", CHAT)
    assert next(stream) == "a"
    stream.close()
    assert closed == ["closed"]


def test_typed_completions_get_their_type() -> None:
    class Body(BaseModel):
        prompt: str
        temperature: float = 1.0

    class Model(Completes):
        def completions(self, inputs: Body) -> Any:
            return inputs

    Model.completions.__annotations__ = {"inputs": Body}
    assert ask(Model(), "chat_completions", {**CHAT, "temperature": 0}).temperature == 0.0


def test_no_chat_without_a_template_or_where_the_settings_say_no() -> None:
    class Bare(Completes):
        tokenizer = Letters()  # type: ignore[assignment]

    class Null(Completes):
        tokenizer = type("None", (Templated,), {"chat_template": None})()

    names = [
        derived(Bare()),
        derived(Null()),
        derived(Completes(), derive=("messages",)),
        derived(Completes(), parity="strict"),
    ]
    assert all("chat_completions" not in found.methods for found in names)


def test_an_own_chat_wins() -> None:
    class Model(Completes):
        def chat_completions(self, inputs: Any) -> str:
            return "mine"

    assert ask(Model(), "chat_completions", CHAT) == "mine"


@pytest.mark.parametrize(
    "field", [{"logprobs": True}, {"tool_choice": "required"}, {"tool_choice": {"type": "function"}}]
)
def test_what_a_bare_text_cannot_give_is_refused(field: dict[str, Any]) -> None:
    error = refused(Completes(), "chat_completions", {**CHAT, "tools": TOOLS, **field})
    assert (error.status, error.code, error.param) == (400, "unsupported_value", next(iter(field)))


def test_a_template_that_does_not_take_the_messages_is_the_clients_error() -> None:
    class Strict(Templated):
        def apply_chat_template(self, messages: Any, **options: Any) -> str:
            raise ValueError("roles must alternate")

    error = refused(with_tokenizer(Strict(), Completes), "chat_completions", CHAT)
    assert isinstance(error, HTTPError) and error.status == 400 and "roles must alternate" in error.message


def test_arguments_of_calls_reach_the_template_as_objects() -> None:
    seen: list[Any] = []

    class Watching(Templated):
        def apply_chat_template(self, messages: Any, **options: Any) -> str:
            seen.extend(messages)
            return ""

    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    ask(with_tokenizer(Watching(), Completes), "chat_completions", {"messages": messages})
    assert seen[0]["content"] == "" and seen[0]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
