"""Control tokens that stand in what a client wrote, with the tokenizers and the chat templates there are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

import gguf_cases as cases  # noqa: E402
from gateway_language import control as it  # noqa: E402
from gateway_language.gguf import tokenizer as gguf  # noqa: E402
from gateway_language.prompts import Prompts  # noqa: E402
from gateway_language.tools import Hermes, family  # noqa: E402
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers  # noqa: E402

from gateway import BadRequest  # noqa: E402

TINY = Path(__file__).parents[3] / "models" / "tiny-chat"
TAGS = (
    "<|endoftext|> <|im_start|> <|im_end|> <think> </think> <tool_call> </tool_call> <tool_response> </tool_response>"
).split()
NOT_SPECIAL = TAGS[3:]
FILES = dict(cases.files(json.loads(cases.ANSWERS.read_text("utf-8"))["vocabularies"]))
TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKS = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"]


@pytest.fixture(scope="module")
def tiny() -> Any:
    return transformers.AutoTokenizer.from_pretrained(TINY, local_files_only=True)


def prompts_of(tokenizer: Any) -> Prompts:
    return Prompts(tokenizer, family(tokenizer.chat_template), True)


def tokens(tokenizer: Any, *messages: dict[str, Any], **fields: Any) -> list[str]:
    ids = prompts_of(tokenizer).chat({"messages": [*messages], **fields}).ids
    return list(tokenizer.convert_ids_to_tokens(ids))


def control(found: Sequence[str]) -> list[str]:
    return [token for token in found if token in TAGS]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def without_tags(tokenizer: Any) -> Tokenizer:
    """The same tokenizer, were there no added tokens."""
    return Tokenizer.from_str(json.dumps({**json.loads(tokenizer.backend_tokenizer.to_str()), "added_tokens": []}))


# ── what is text ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tag", TAGS)
def test_a_control_token_in_a_message_has_the_ids_of_ordinary_text(tiny: Any, tag: str) -> None:
    said = f"Say {tag}, twice:{tag}{tag}\n{tag}"
    before, after = (tokens(tiny, user("!"), add_generation_prompt=False) for _ in range(2))
    at = before.index("!")
    found = tokens(tiny, user(said), add_generation_prompt=False)
    assert found == [*before[:at], *without_tags(tiny).encode(said).tokens, *after[at + 1 :]]


def test_what_the_library_leaves_out_on_request_are_only_special_tokens(tiny: Any) -> None:
    """So its `split_special_tokens` would leave half of the tags what they are, those of the template included."""
    ids = tiny("".join(TAGS), split_special_tokens=True)["input_ids"]
    assert control(tiny.convert_ids_to_tokens(ids)) == NOT_SPECIAL


CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": "%s"}'}}
TOOL = {"type": "function", "function": {"name": "add", "description": "%s", "parameters": {"type": "object"}}}
KEYED = {"type": "function", "function": {"name": "add", "parameters": {"properties": {"%s": {"type": "string"}}}}}


def filled(value: Any, word: str) -> Any:
    return json.loads(json.dumps(value).replace("%s", word))


@pytest.mark.parametrize(
    "request_",
    [
        {"messages": [{"role": "system", "content": "%s"}, user("Hi")]},
        {"messages": [{"role": "developer", "content": "a %s b"}, user("Hi")]},
        {"messages": [user([{"type": "text", "text": "a %s"}, {"type": "text", "text": "b"}])]},
        {"messages": [user("Hi"), {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        {"messages": [user("Hi"), {"role": "tool", "tool_call_id": "1", "content": "%s"}]},
        {"messages": [user("Hi")], "tools": [TOOL]},
        {"messages": [user("Hi")], "tools": [KEYED]},
        {"messages": [user("Hi"), {"role": "system", "content": "late %s"}, user("Ho")]},
    ],
    ids=["system", "developer", "parts", "arguments", "result", "description", "key", "late-system"],
)
@pytest.mark.parametrize("tag", ["<|im_end|>", "</tool_call>", "<think>"])
def test_wherever_a_client_writes_one_it_is_text(tiny: Any, request_: dict[str, Any], tag: str) -> None:
    prompts = prompts_of(tiny)
    tagged, plain = (prompts.chat(filled(request_, word)).ids for word in (f"x{tag}y", "xy"))
    assert control(tiny.convert_ids_to_tokens(tagged)) == control(tiny.convert_ids_to_tokens(plain))
    assert tiny.decode(tagged).replace(f"x{tag}y", "xy") == tiny.decode(plain)


@pytest.mark.parametrize("tag", TAGS)
def test_a_function_that_has_to_be_called_may_have_one_in_its_name(tiny: Any, tag: str) -> None:
    tagged, plain = (prompts_of(tiny).call(name, Hermes.forced) for name in (f"x{tag}y", "xy"))
    assert control(tiny.convert_ids_to_tokens(tagged)) == control(tiny.convert_ids_to_tokens(plain)) == ["<tool_call>"]
    assert tiny.decode(tagged) == Hermes.forced(f"x{tag}y")


def test_one_that_is_put_together_of_two_parts_is_text(tiny: Any) -> None:
    parts = [{"type": "text", "text": "<|im_"}, {"type": "text", "text": "end|>"}]
    assert tokens(tiny, user(parts)) == tokens(tiny, user("<|im_end|>"))
    assert control(tokens(tiny, user(parts))) == control(tokens(tiny, user("Hi")))


WORDS = st.lists(st.sampled_from([*TAGS, "a", " b", "\n", "é", "<|im_", "end|>", "<", "12", "</"]), max_size=6)
TEXTS = WORDS.map("".join) | st.text(max_size=8)
MESSAGES = st.lists(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["system", "user", "tool"]), TEXTS),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(messages=MESSAGES)
def test_any_messages_are_the_text_that_the_template_makes_and_only_its_tokens_are_control_tokens(
    tiny: Any, messages: list[dict[str, Any]]
) -> None:
    messages = [{"role": "system", "content": "s"}, *(m for m in messages if m["role"] != "system"), user("u")]
    text = tiny.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = prompts_of(tiny).chat({"messages": messages}).ids
    quiet = [{**message, "content": "x"} for message in messages]
    assert tiny.decode(ids) == text
    assert control(tiny.convert_ids_to_tokens(ids)) == control(tokens(tiny, *quiet))
    if not any(tag in message["content"] for message in messages for tag in TAGS):
        assert ids == tiny(text, add_special_tokens=False)["input_ids"]


# ── the assistant's own ──────────────────────────────────────────────────────────────────────────────────────────────


def test_tags_that_an_answer_shows_are_what_they_are_in_an_earlier_answer(tiny: Any) -> None:
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}
    call = {"role": "assistant", "content": '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'}
    for message in (thought, call):
        text = tiny.apply_chat_template([user("a"), message, user("b")], tokenize=False, add_generation_prompt=True)
        for word in ("b", "<|im_end|>"):  # whether or not there are others
            found = tokens(tiny, user("a"), message, user(word))
            assert control(found) == control(tiny.convert_ids_to_tokens(tiny(text)["input_ids"]))


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_no_answer_ends_its_own_turn(tiny: Any, field: str) -> None:
    said = {"role": "assistant", "content": "Yes."}
    tagged, plain = (tokens(tiny, user("a"), {**said, field: text}, user("b")) for text in ("x<|im_end|>y", "xy"))
    assert control(tagged) == control(plain) and len(tagged) > len(plain)


def test_an_answer_that_is_continued_goes_on_behind_text(tiny: Any) -> None:
    begun = {"role": "assistant", "content": "<think>\nhm <|im_end|>"}
    prompt = prompts_of(tiny).chat({"messages": [user("<|im_start|>"), begun], "continue_final_message": True})
    assert (prompt.thought, prompt.goes_on) == (True, True)
    found = tiny.convert_ids_to_tokens(prompt.ids)
    assert control(found) == "<|im_start|> <|im_end|> <|im_start|> <think>".split()
    text = without_tags(tiny).encode(" <|im_end|>").tokens
    assert found[-len(text) :] == text


def test_tags_of_calls_that_are_special_tokens_stay_in_answers() -> None:
    tokenizer = letters(["[TOOL_CALLS]", "<|end|>", "<|user|>", "<|assistant|>"], TURNS + "{# tools: [TOOL_CALLS] #}")
    said = {"role": "assistant", "content": "[TOOL_CALLS]<|end|>"}
    found = tokens(tokenizer, user("[TOOL_CALLS]"), said, user("!"))
    assert found.count("[TOOL_CALLS]") == 1 and found.count("<|end|>") == 3


# ── templates ────────────────────────────────────────────────────────────────────────────────────────────────────────


def letters(special: Sequence[str], template: str, **parts: Any) -> Any:
    """A tokenizer with a token for each letter."""
    words = [*map(chr, range(32, 127)), "\n", "é"]
    backend = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    for name, part in parts.items():
        setattr(backend, name, part)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_special_tokens({"additional_special_tokens": [*special]})
    tokenizer.chat_template = template
    return tokenizer


def of_marks(tokenizer: Any, *messages: dict[str, Any], **fields: Any) -> tuple[str, int]:
    """The text of the prompt, and how many of its tokens are marks."""
    found = tokens(tokenizer, *messages, **fields)
    return "".join(found), sum(token in MARKS for token in found)


@pytest.mark.parametrize(
    ("filter_", "made"),
    [
        ("", " <|end|>Hi "),
        ("| trim", "<|end|>Hi"),
        ("| upper", " <|end|>HI "),
        ("| tojson", '" <|end|>Hi "'),
        ("[0:] + ''", " <|end|>Hi "),
        (".split(',')[-1]", " <|end|>Hi "),
        ("| list | join", " <|end|>Hi "),
        ("| replace('<|end|>', '')", " <|end|>Hi "),
    ],
)
def test_a_template_may_trim_quote_and_change_what_is_written(filter_: str, made: str) -> None:
    tokenizer = letters(MARKS, TURNS.replace("m.content", f"m.content {filter_}"))
    text, marks = of_marks(tokenizer, user(" <|end|>Hi "), add_generation_prompt=False)
    assert (text, marks) == (f"<|user|>{made}<|end|>", 2)


def test_a_template_that_looks_for_a_tag_of_its_own_finds_none_in_what_a_user_wrote() -> None:
    """As those of Qwen, which take a user's message between these tags for the result of a tool."""
    looks = "{% if m.content.startswith('<|tool|>') %}TOOL{% else %}{{ m.content }}{% endif %}"
    tokenizer = letters(MARKS, TURNS.replace("{{ m.content }}", looks))
    assert of_marks(tokenizer, user("<|tool|>Hi"))[0] == "<|user|><|tool|>Hi<|end|><|assistant|>"


@pytest.mark.parametrize(
    "cuts", ["m.content | truncate(9, True, '')", "m.content[:2]", "m.content[-3:]", "m.content[::-1]"]
)
def test_where_a_template_takes_texts_apart_they_are_read_as_it_makes_them_and_the_log_says_so_once(
    cuts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = letters(MARKS, TURNS.replace("m.content", cuts))
    prompts = prompts_of(tokenizer)
    text = tokenizer.apply_chat_template([user("a<|end|>Hi")], tokenize=False, add_generation_prompt=True)
    for _ in range(2):
        ids = prompts.chat({"messages": [user("a<|end|>Hi")]}).ids
        assert ids == tokenizer(text)["input_ids"]
    assert capsys.readouterr().out.count("its chat template changes what is written") == 1


def test_a_template_may_sort_what_is_written_whatever_it_is_called() -> None:
    sorts = "{% for name in tools[0].function.parameters.properties | sort %}{{ name }} {% endfor %}"
    tokenizer = letters(MARKS, sorts + TURNS)
    tool = filled(KEYED, "<|end|>")
    tool["function"]["parameters"]["properties"] |= {str(number): {} for number in range(10)}
    ids = Prompts(tokenizer, Hermes, False).chat({"messages": [user("Hi")], "tools": [tool]}).ids
    found = tokenizer.convert_ids_to_tokens(ids)
    assert sorted("".join(found).split()[:-1]) == sorted([*"0123456789", "<|end|>"])
    assert [token for token in found if token in MARKS] == ["<|user|>", "<|end|>", "<|assistant|>"]


def test_what_a_template_drops_is_dropped() -> None:
    tokenizer = letters(MARKS, TURNS.replace("in messages", "in messages if m.role != 'tool'"))
    dropped = {"role": "tool", "content": "<|end|>", "tool_call_id": "1"}
    assert of_marks(tokenizer, user("Hi<|end|>"), dropped) == ("<|user|>Hi<|end|><|end|><|assistant|>", 3)


def test_a_template_that_refuses_says_so_in_the_words_of_the_client() -> None:
    tokenizer = letters(MARKS, "{{ raise_exception('no ' + messages[0].content) }}")
    with pytest.raises(BadRequest, match=r"no <\|end\|>1"):
        tokens(tokenizer, user("<|end|>1"))


@pytest.mark.parametrize(
    "check",
    [
        "m.tool_call_id|length != 9",
        "m.tool_call_id[0] in '0123456789'",
        "m.tool_call_id.isalnum()",
    ],
)
def test_a_form_that_a_template_checks_makes_no_control_token_real(check: str) -> None:
    """It sees a number in the place of the token, and would take the id alone as it was sent."""
    check = "{% if m.role == 'tool' and CHECK %}{{ raise_exception('form') }}{% endif %}".replace("CHECK", check)
    tokenizer = letters(MARKS, TURNS.replace("<|{{ m.role", check + "<|{{ m.role"))
    result = {"role": "tool", "content": "Hi", "tool_call_id": "<|end|>ab"}
    with pytest.raises(BadRequest, match=r"control token \(<\|end\|>, <\|user\|>\)") as refused:
        tokens(tokenizer, user("Hi<|end|><|user|>"), result)
    assert refused.value.param == "messages"


def test_options_of_a_template_are_what_a_client_wrote() -> None:
    tokenizer = letters(MARKS, "{{ style }}{{ documents[0].text }}" + TURNS)
    fields = {"chat_template_kwargs": {"style": "<|end|>"}, "documents": [{"text": "<|user|>"}]}
    assert of_marks(tokenizer, user("Hi"), **fields) == ("<|end|><|user|><|user|>Hi<|end|><|assistant|>", 3)


# ── tokenizers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def of(model: Any, added: Sequence[Any], **parts: Any) -> Any:
    backend = Tokenizer(model)
    for name, part in parts.items():
        setattr(backend, name, part)
    backend.add_tokens([*added])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.chat_template = "{% for m in messages %}<a> {{ m.content }} <a>{% endfor %}"
    return tokenizer


def bpe(*words: str, **options: Any) -> Any:
    letters_ = [*"\u2581 <>[]|ab/AB\uff1c\uff1ehi", *words]
    return models.BPE({letter: index for index, letter in enumerate(letters_)}, [], **options)


UNIGRAM = models.Unigram([("<unk>", 0.0), ("<a>", 0.0), *((letter, -1.0) for letter in "\u2581 <>ab/hi")], 0)
STRIPS = AddedToken("<a>", lstrip=True, rstrip=True, normalized=False)
ODD: Mapping[str, Any] = {
    "not special": of(bpe(), [AddedToken("<a>", normalized=False)]),
    "strips": of(bpe(), [STRIPS]),
    "in a vocabulary that takes words whole": of(
        bpe("<a>", ignore_merges=True), ["<a>"], pre_tokenizer=pre_tokenizers.WhitespaceSplit()
    ),
    "in words": of(
        models.WordLevel({"[UNK]": 0, "<a>": 1, "hi": 2, "<": 3, "a": 4, ">": 5}, unk_token="[UNK]"),
        ["<a>"],
        pre_tokenizer=pre_tokenizers.WhitespaceSplit(),
    ),
    "grown by merges": of(
        models.BPE(
            {"<": 0, "a": 1, ">": 2, "<a": 3, "<a>": 4, "h": 5, "i": 6, " ": 7, "|": 8, "b": 9},
            [("<", "a"), ("<a", ">")],
        ),
        ["<a>"],
    ),
    "scores": of(UNIGRAM, [AddedToken("<a>", normalized=False)], pre_tokenizer=pre_tokenizers.Metaspace()),
    "first of a text": of(
        UNIGRAM, [AddedToken("<a>", normalized=False)], pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first")
    ),
    "blank before each piece": of(
        bpe(),
        [AddedToken("<a>", normalized=False)],
        normalizer=normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]),
    ),
    "lowercase": of(bpe(), [AddedToken("<a>", normalized=True)], normalizer=normalizers.Lowercase()),
    "compatible": of(bpe(), [AddedToken("<a>", normalized=True)], normalizer=normalizers.NFKC()),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    "said", ["<a>", "hi<a>hi", "hi <a> hi", "<a><a>", "<A>", "\uff1ca\uff1e", "h <A> \uff1ca\uff1e"]
)
def test_with_any_tokenizer_only_the_marks_of_the_template_are_tokens(name: str, said: str) -> None:
    tokenizer = ODD[name]
    mark = tokenizer.convert_tokens_to_ids("<a>")
    assert Prompts(tokenizer, None, False).chat({"messages": [user(said)]}).ids.count(mark) == 2


@pytest.mark.parametrize("name", FILES)
def test_so_it_is_with_every_vocabulary_of_gguf_files(name: str) -> None:
    said = FILES[name]
    vocabulary = gguf.read_vocabulary(said)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=gguf.rebuild(said, vocabulary))
    mark, *others = [
        text for text, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True) if kind == gguf.CONTROL
    ]
    tokenizer.chat_template = "{% for m in messages %}" + mark + "{{ m.content }}" + mark + "{% endfor %}"
    prompts = Prompts(tokenizer, None, False)
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    unknown = vocabulary.ids.get("unknown")
    for tag in (mark, *others):
        ids = prompts.chat({"messages": [user(f"Hi{tag} Ho\n{tag}")]}).ids
        assert [index for index in ids if index in added.values() and index != unknown] == [added[mark]] * 2


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("said", ["hi", "h  i", " hi ", "<b>", "<a", "<|a|>", "a>"])
def test_other_texts_have_the_ids_of_the_library_beside_marked_ones_too(name: str, said: str) -> None:
    tokenizer = ODD[name]
    prompts = Prompts(tokenizer, None, False)
    library = tokenizer.apply_chat_template([user(said)], tokenize=True, return_dict=False)
    assert prompts.chat({"messages": [user(said)]}).ids == library
    whole = prompts.chat({"messages": [user(said), user("<a>")]}).ids
    assert whole[: len(library)] == library or name == "strips"  # the next mark takes the blank before it


def test_with_tokens_that_depend_on_the_letters_beside_them_nobody_can_tell(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = of(bpe(), [AddedToken("<a>", single_word=True, normalized=False)])
    Prompts(tokenizer, None, False)
    assert "its tokenizer cannot tell one from the other" in capsys.readouterr().out


def test_added_tokens_that_are_words_or_blanks_are_read_as_ever() -> None:
    """Vocabularies have runs of blanks, letters and the words of HTML among them, as any text has."""
    added = ["\n\n", "  ", "\u2581\u2581", "é", "covid", "<table>", "</h1>", "<0x0A>"]
    assert not any(it.is_control(text, is_special=False) for text in added)
    tokenizer = letters(["<|end|>"], TURNS)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    said = "  covid\n\n<table>é</h1>"
    for text in (said, f"{said}<|end|>"):
        found = tokens(tokenizer, user(text), add_generation_prompt=False)
        assert [token for token in found if token in added] == ["  ", "covid", "\n\n", "<table>", "é", "</h1>"]


@pytest.mark.parametrize(
    "text", ["<think>", "</tool_call>", "[INST]", "<\uff5ctool\u2581calls\u2581begin\uff5c>", "<|a|>"]
)
def test_a_word_between_signs_is_a_control_token_also_when_it_is_not_special(text: str) -> None:
    assert it.is_control(text, is_special=False)


def test_the_longest_of_two_that_begin_alike_is_found() -> None:
    texts = ["<a>", "<a>b", "<|x|>", "<|y|>", "<a"]
    assert it.any_of(texts).findall("<a>b<a>c<a <|y|><|x<|x|>") == ["<a>b", "<a>", "<a", "<|y|>", "<|x|>"]


def test_a_tokenizer_of_another_library_says_once_that_it_cannot_tell(capsys: pytest.CaptureFixture[str]) -> None:
    class Plain:
        chat_template = "{{ messages[0].content }}"
        added_tokens_decoder = {0: AddedToken("<a>", special=True)}  # noqa: RUF012

        def apply_chat_template(self, messages: Any, tokenize: bool, add_generation_prompt: bool) -> str:
            return str(messages[0]["content"])

        def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [*map(ord, text)]}

    prompts = Prompts(Plain(), Hermes, False)
    assert [*map(chr, prompts.chat({"messages": [user("<a>")]}).ids)] == ["<", "a", ">"]
    assert capsys.readouterr().out.count("its tokenizer cannot tell one from the other") == 1
