from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers")

from gateway_language.answer import Answer, Thinking  # noqa: E402
from gateway_language.logprobs import Logprobs, Piece  # noqa: E402
from gateway_language.reply import Reply  # noqa: E402
from gateway_language.text import StopStrings, TextStream  # noqa: E402
from gateway_language.tools import Hermes, Llama, Mistral, Parser  # noqa: E402
from gateway_transformers.engine import Record  # noqa: E402
from gateway_transformers.sampling import Score  # noqa: E402

FAMILIES: list[type[Parser] | None] = [Hermes, Llama, Mistral, None]
WRITTEN = [
    *("<think>", "</think>", "<thi", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>"),
    *(
        '{"name": "f", "arguments": {"a": 1}}',
        '{"name": "g"}',
        "[{",
        ",",
        ";",
        "]",
        "{}",
        "f",
        "END",
        "EN",
        " ",
        "\n",
        "😀",
    ),
]
STOP = 256  # <|end|>


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Any:
    """Every token is a byte."""
    return transformers.AutoTokenizer.from_pretrained(checkpoint)


def reply(tokenizer: Any, tokens: list[int], kind: type[Parser] | None, *, thinks: bool, every: bool = False) -> Reply:
    record = Record()
    record.answer.extend(Score(token, float(-at), ()) for at, token in enumerate(tokens))
    answer = Answer(Thinking(False) if thinks else None, kind(("f",)) if kind else None, StopStrings(["END", "\n\n"]))
    logprobs = Logprobs(tokenizer, record, every=every)
    return Reply(TextStream(tokenizer, []), answer, frozenset({STOP}), logprobs)


def steps(tokens: list[int], cuts: list[int]) -> list[list[int]]:
    places = sorted({0, len(tokens), *(cut % (len(tokens) + 1) for cut in cuts)})
    return [tokens[start:stop] for start, stop in pairwise(places)]


def said(events: list[Any]) -> tuple[str, list[dict[str, Any]]]:
    """The content, and its entries. Whatever crosses the wire is plain, and no entry is there before its text."""
    text, entries = "", []
    for event in events:
        event = {"content": event} if isinstance(event, str) else event
        content = event.get("content", "")
        assert not isinstance(content, Piece)
        assert not any(isinstance(value, Piece) for value in event.values())
        for call in event.get("tool_calls", ()):
            assert not any(isinstance(value, Piece) for value in call["function"].values())
        text += content
        entries += event.get("logprobs", {}).get("content", [])
        assert sum(len(entry["bytes"]) for entry in entries) <= len(text.encode())
    return text, entries


@given(
    st.lists(st.sampled_from(WRITTEN) | st.text(max_size=3), max_size=15).map("".join),
    st.lists(st.integers(0, 300), max_size=10),
    st.sampled_from(FAMILIES),
    st.booleans(),
)
def test_the_content_has_the_entries_of_its_tokens_however_they_come(
    tokenizer: Any, text: str, cuts: list[int], kind: type[Parser] | None, thinks: bool
) -> None:
    tokens = tokenizer(text)["input_ids"]
    made = reply(tokenizer, tokens, kind, thinks=thinks)
    content, entries = said([*(event for step in steps(tokens, cuts) for event in made.read(step)), *made.finish()])
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == content
    assert sorted({entry["logprob"] for entry in entries}, reverse=True) == [entry["logprob"] for entry in entries]
    one = reply(tokenizer, tokens, kind, thinks=thinks)
    alone = said([*(event for token in tokens for event in one.read([token])), *one.finish()])
    assert alone == (content, entries)


@given(st.text(), st.lists(st.integers(0, 300), max_size=10), st.integers(0, 300))
def test_a_completion_has_as_many_entries_as_tokens(tokenizer: Any, text: str, cuts: list[int], stop: int) -> None:
    tokens = tokenizer(text)["input_ids"]
    tokens = [*tokens[:stop], STOP, *tokens[stop:]]
    made = reply(tokenizer, tokens, None, thinks=False, every=True)
    events = [*(event for step in steps(tokens, cuts) for event in made.read(step)), *made.finish()]
    entries = [entry for event in events if isinstance(event, dict) for entry in event["logprobs"]["content"]]
    assert [entry["logprob"] for entry in entries] == [float(-at) for at in range(made.count)]
    assert bytes(byte for entry in entries for byte in entry["bytes"]).startswith(
        text.partition("\n\n")[0].encode()[:stop]
    )


@pytest.mark.parametrize(
    ("text", "kind", "first", "last"),
    [
        ("<think>a\n</think>\n1\n", None, len("<think>a\n</think>\n"), len("<think>a\n</think>\n1\n")),
        ("11<tool_call>", Hermes, 0, len("11<tool_call>")),  # a tag that came to nothing is content
        ('ab\n\n<tool_call>{"name": "f", "arguments": {}}', Hermes, 0, len("ab")),
        ("ab EN", None, 0, len("ab EN")),
        ("ab END cd", None, 0, len("ab ")),
    ],
)
def test_entries_are_those_of_the_tokens_that_are_said(
    tokenizer: Any, text: str, kind: type[Parser] | None, first: int, last: int
) -> None:
    tokens = tokenizer(text)["input_ids"]
    made = reply(tokenizer, tokens, kind, thinks=True)
    _, entries = said([*made.read(tokens), *made.finish()])
    assert [-entry["logprob"] for entry in entries] == list(range(first, last))


def test_the_bytes_of_half_a_character_go_out_with_it(tokenizer: Any) -> None:
    tokens = tokenizer("a😀")["input_ids"]
    made = reply(tokenizer, tokens[:-1], None, thinks=False)
    sizes = [[len(said([event])[1]) for event in made.read([token])] for token in tokens[:-1]]
    assert sizes == [[1], [], [], []]
    assert [len(event["logprobs"]["content"]) for event in made.finish()] == [3]  # with the sign for what was cut off


@pytest.fixture(scope="module")
def sentencepiece() -> Any:
    """As Llama 2 has it: `<s>` and a blank stand before a prompt, and what is no word is bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors

    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcdefgh"]
    vocab = {word: number for number, word in enumerate(words)}
    built = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    built.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    blank = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    built.decoder = decoders.Sequence(blank)
    built.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=built, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@given(prompt=st.text("abc é😀", max_size=8).map("a".__add__), answer=st.text("def gü", min_size=1, max_size=8))
def test_each_offset_is_where_its_token_begins_in_the_text(sentencepiece: Any, prompt: str, answer: str) -> None:
    made = sentencepiece
    ids, more = made(prompt)["input_ids"], made(answer)["input_ids"][2:]  # without `<s>` and the blank
    record = Record()
    record.prompt.extend(Score(token, -1.0, ()) for token in ids[1:])
    record.answer.extend(Score(token, -1.0, ()) for token in more)
    logprobs = Logprobs(made, record, every=True)
    told = Reply(TextStream(made, ids), Answer(None, None, StopStrings([])), frozenset({2}), logprobs)
    entries = logprobs.of_prompt(ids, prompt)["content"]
    entries += said([event for token in more for event in told.read([token])] + list(told.finish()))[1]
    text, written = prompt + answer, [bytes(entry["bytes"]) for entry in entries]
    offsets = [entry["text_offset"] for entry in entries]
    before = [len(b"".join(written[2:at]).decode(errors="ignore")) for at in range(len(written))]
    assert offsets == before, (text, written)
