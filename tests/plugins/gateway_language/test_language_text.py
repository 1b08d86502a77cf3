from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers")

from gateway_language.text import BadWords, StopStrings, TextStream, overlap  # noqa: E402
from gateway_language.vocabulary import Vocabulary, byte_letters, vocabulary  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models  # noqa: E402

TEXTS = [
    "plain words, and  two spaces",
    "naïve café: 你好, мир 😀👍🏽!",
    "\n\n  def f(x):\n\treturn x + 1\n",
    "x" * 100,
    "🏳️‍🌈" * 5,
    "ភាសាខ្មែរ हिन्दी العربية ไทย 日本語",
    "\ufffd" * 30 + " really",
]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["▁", "▁▁", "▁the", "▁cat", "s", "a▁b", *"né你ម"]
LETTERS = {byte: letter for letter, byte in byte_letters().items()}
CROSSING = [
    data[at : at + size] for text in TEXTS for data in [text.encode()] for size in (2, 3, 4) for at in (1, 2, 5)
]


def make(decoder: Any, words: list[str]) -> Any:
    """A tokenizer of these words, two special tokens and an added one."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=words[0]))
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_tokens([AddedToken("<t>", special=False)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


space, fallback, fuse = decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()
strip = decoders.Strip(" ", 1, 0)
SENTENCEPIECE = {
    "llama": [space, fallback, fuse, strip],
    "gemma": [space, fallback, fuse],
    "gguf": [fallback, fuse, space, strip],
    "not fused": [space, fallback, strip],
    "three spaces": [space, fallback, fuse, decoders.Strip(" ", 3, 0)],
    "metaspace": [fallback, decoders.Metaspace("▁", "first")],
}
WORDS: dict[str, tuple[Any, list[str]]] = {
    **{scheme: (decoders.Metaspace("▁", scheme), PIECES) for scheme in ("always", "first", "never")},
    "wordpiece": (decoders.WordPiece(), ["##a", "##b", "c", "d", ".", "n't", "'", "##.", "##n't"]),
    "as they are": (decoders.WordPiece("@@", cleanup=False), ["@@a", "b", ".", "n't"]),
    "suffixes": (decoders.BPEDecoder("</w>"), ["a", "b</w>", "cd", "e</w>", "</w>"]),
    "ctc": (decoders.CTC(), ["<pad>", "|", "a", "b", "n't"]),
    "stripped": (decoders.Sequence([space, decoders.Strip(" ", 2, 0)]), PIECES),
    "none": (None, ["a", "b", "cd"]),
    "across": (decoders.Sequence([fuse, decoders.Replace("ab", "X")]), ["a", "b", "ab"]),
    "across words": (decoders.Sequence([fuse, decoders.WordPiece()]), ["a", " ", ".", "n't"]),
}


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def sentencepiece() -> Any:
    """A tokenizer whose words begin with a mark for the space before them, as Llama 2's do."""
    return make(decoders.Sequence(SENTENCEPIECE["llama"]), [*PIECES, *BYTES])


def pieces(tokenizer: Any, prompt: list[int], tokens: list[int]) -> list[str]:
    stream = TextStream(tokenizer, prompt)
    return [*(stream.push(token) for token in tokens), stream.rest()]


def read(tokenizer: Any, tokens: list[int]) -> str:
    return tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


# ── the text of all tokens ───────────────────────────────────────────────────────────────────────────────────────────

MADE: dict[str, Any] = {}


def made(name: str) -> Any:
    if name not in MADE:
        if name in WORDS:
            MADE[name] = make(*WORDS[name])
        elif name in SENTENCEPIECE:
            MADE[name] = make(decoders.Sequence(SENTENCEPIECE[name]), [*PIECES, *BYTES])
        else:
            decoder = decoders.ByteLevel()
            decoder = decoder if name == "bytes" else decoders.Sequence([decoder, decoders.Strip("x", 1, 0)])
            words = [bytes([byte]) for byte in range(256)] + CROSSING
            MADE[name] = make(decoder, ["".join(LETTERS[byte] for byte in word) for word in words])
    return MADE[name]


def text() -> st.SearchStrategy[str]:
    return st.sampled_from(TEXTS) | st.text(max_size=20)


@given(st.data(), st.sampled_from(list(WORDS)))
def test_any_decoder_is_streamed_as_it_reads_all_tokens(data: st.DataObject, name: str) -> None:
    tokenizer = made(name)
    nothing = st.sampled_from([*tokenizer.all_special_ids, 99999])  # special, or beyond the vocabulary
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer) - 1) | nothing, max_size=60))
    cut = data.draw(st.integers(0, len(tokens)))
    whole, begun = read(tokenizer, tokens), read(tokenizer, tokens[:cut])
    if whole.startswith(begun):  # not where what follows changes the prompt
        assert begun + "".join(pieces(tokenizer, tokens[:cut], tokens[cut:])) == whole


def whole_characters(tokenizer: Any, tokens: list[int]) -> str:
    """What byte-level tokens read as, up to the last whole character."""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    words = vocabulary(tokenizer)
    utf8.decode(b"".join(words.bytes(token) for token in tokens if not words.skips(token)))
    text = read(tokenizer, tokens)
    return text.removesuffix("\ufffd") if utf8.getstate()[0] else text


@settings(max_examples=200)
@given(st.sampled_from(["bytes", "stripped bytes"]), st.lists(st.integers(0, 300), max_size=80), st.integers(0, 80))
def test_any_bytes_are_streamed_as_all_of_them_are_read(name: str, numbers: list[int], cut: int) -> None:
    tokenizer = made(name)
    tokens = [number % len(tokenizer) for number in numbers]
    begun = whole_characters(tokenizer, tokens[:cut])
    assert begun + "".join(pieces(tokenizer, tokens[:cut], tokens[cut:])) == read(tokenizer, tokens)


@given(st.data(), st.sampled_from(["bytes", "stripped bytes"]), text(), st.integers(0, 300))
def test_characters_in_any_tokens_come_whole(data: st.DataObject, name: str, text: str, cut: int) -> None:
    tokenizer, left, tokens = made(name), text.encode(), []
    numbers = {vocabulary(tokenizer).bytes(number): number for number in range(len(tokenizer) - 3)}
    while left:
        size = data.draw(st.sampled_from([size for size in (1, 2, 3, 4) if left[:size] in numbers]))
        tokens.append(numbers[left[:size]])
        left = left[size:]
    streamed = pieces(tokenizer, tokens[:cut], tokens[cut:])
    wanted = text.removeprefix("x" if name == "stripped bytes" else "")
    assert whole_characters(tokenizer, tokens[:cut]) + "".join(streamed) == wanted
    assert streamed[-1] == ""


@settings(max_examples=200)
@given(
    st.sampled_from(list(SENTENCEPIECE)),
    st.lists(st.sampled_from(PIECES) | st.sampled_from(["<s>", "<t>"]) | text(), max_size=12),
    st.integers(0, 150),
    st.integers(0, 150),
)
@example("llama", ["😀" * 10], 0, 41)
@example("llama", [":", "😀😀"], 9, 150)
@example("gemma", ["s", "ភាសាខ្មែរ"], 1, 150)
def test_byte_tokens_are_streamed_as_all_of_them_are_read(name: str, parts: list[str], cut: int, stop: int) -> None:
    """A part that is no token of its own is written in bytes; prompt and answer may each end within a character."""
    tokenizer = made(name)
    ends, tokens = [0], []
    for part in parts:
        known = part in PIECES or part in ("<s>", "<t>")
        for unit in [[part]] if known else [[f"<0x{byte:02X}>" for byte in char.encode()] for char in part]:
            tokens += tokenizer.convert_tokens_to_ids(unit)
            ends.append(len(tokens))
    cut, stop = min(cut, len(tokens)), max(cut, stop)
    begun, end = (max(at for at in ends if at <= place) for place in (cut, min(stop, len(tokens))))
    half = len(tokens[:stop]) - end
    whole = read(tokenizer, tokens[:end]) + "\ufffd" * half
    assert read(tokenizer, tokens[:begun]) + "".join(pieces(tokenizer, tokens[:cut], tokens[cut:stop])) == whole


@pytest.mark.parametrize("name", [*SENTENCEPIECE, "bytes", "stripped bytes", "always", "wordpiece", "suffixes", "ctc"])
def test_a_long_text_is_never_decoded_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, sizes = made(name), []
    words = vocabulary(tokenizer)
    decode = words.decode
    monkeypatch.setattr(words, "decode", lambda tokens: sizes.append(len(tokens)) or decode(tokens))
    word = [10, 5] if words.is_bytes or not words.falls_back else list(words.lost)
    stream = TextStream(tokenizer, word * 200)
    for token in word * 200:
        stream.push(token)
    assert max(sizes) < 30


def test_bytes_that_make_no_character_are_lost_alone(sentencepiece: Any) -> None:
    you, wrong = (
        sentencepiece.convert_tokens_to_ids([f"<0x{b:02X}>" for b in data]) for data in ("你".encode(), b"\xff")
    )
    s = sentencepiece.convert_tokens_to_ids("s")
    assert pieces(sentencepiece, [s], [*you, *wrong, *you, *you[:2], s]) == [
        *["", "", "你"],
        *["\ufffd", "", "", "你"],
        *["", "", "\ufffd\ufffds"],
        "",
    ]


def test_a_replacement_character_that_was_written_is_not_held_back(tokenizer: Any, sentencepiece: Any) -> None:
    for one in (tokenizer, sentencepiece):
        words = vocabulary(one)
        tokens = words.lost or one("\ufffd")["input_ids"]
        assert pieces(one, [], tokens * 2) == ["", "", "\ufffd", "", "", "\ufffd", ""]


# ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_whole_text_and_are_never_half_a_character(tokenizer: Any, text: str) -> None:
    prompt = tokenizer("<|user|>hello<|end|><|assistant|>")["input_ids"]
    streamed = pieces(tokenizer, prompt, tokenizer(text)["input_ids"])
    assert "".join(streamed) == text
    assert streamed[-1] == ""


def test_a_character_comes_as_a_whole_with_its_last_byte(tokenizer: Any) -> None:
    assert pieces(tokenizer, [], tokenizer("a😀b")["input_ids"]) == ["a", "", "", "", "😀", "b", ""]


def test_a_character_that_was_cut_off_is_what_the_tokenizer_reads(tokenizer: Any) -> None:
    tokens = tokenizer("ab😀")["input_ids"][:-1]
    assert "".join(pieces(tokenizer, [], tokens)) == read(tokenizer, tokens) == "ab\ufffd"


def test_a_character_that_the_prompt_began_is_the_answers(tokenizer: Any) -> None:
    tokens = tokenizer("😀 yes")["input_ids"]
    assert "".join(pieces(tokenizer, tokens[:2], tokens[2:])) == "😀 yes"


def test_what_is_echoed_and_what_is_added_are_the_whole_text(tokenizer: Any, sentencepiece: Any) -> None:
    units = ["▁the", "▁cat", *(f"<0x{byte:02X}>" for byte in "你😀".encode()), "s"]
    for one, tokens in (
        (tokenizer, tokenizer("<|user|>the 你😀 yes")["input_ids"]),
        (sentencepiece, sentencepiece.convert_tokens_to_ids(units)),
    ):
        for cut in range(1, len(tokens)):
            stream = TextStream(one, tokens[:cut])
            echoed = stream.begun(tokens[:cut])
            assert echoed + "".join([*map(stream.push, tokens[cut:]), stream.rest()]) == one.decode(tokens)


def test_special_tokens_are_no_text(tokenizer: Any) -> None:
    tokens = tokenizer("one<|user|>two")["input_ids"]
    assert "".join(pieces(tokenizer, [], tokens)) == "onetwo"


def test_special_tokens_that_are_markup_are_text(tokenizer: Any) -> None:
    tokens = tokenizer("one<|user|>two<|end|>")["input_ids"]
    stream = TextStream(tokenizer, [], {tokenizer.convert_tokens_to_ids("<|user|>"): "<|user|>"})
    assert "".join(map(stream.push, tokens)) == "one<|user|>two"


def test_spaces_stay_behind_special_tokens_however_many(sentencepiece: Any) -> None:
    special, the = sentencepiece.convert_tokens_to_ids(["</s>", "▁the"])
    assert pieces(sentencepiece, [the, *[special] * 30], [the]) == [" the", ""]


def test_tokens_are_told_as_their_bytes(tokenizer: Any, sentencepiece: Any) -> None:
    for text in TEXTS:
        tokens = tokenizer(text)["input_ids"]
        assert b"".join(map(Vocabulary(tokenizer).bytes, tokens)) == text.encode()
    assert Vocabulary(tokenizer).bytes(tokenizer.eos_token_id) == b"<|end|>"
    assert Vocabulary(tokenizer).bytes(len(tokenizer) + 5) == b""
    tokens = sentencepiece.convert_tokens_to_ids(["▁the", "s", "<0xE4>"])
    assert list(map(Vocabulary(sentencepiece).bytes, tokens)) == [b" the", b"s", b"\xe4"]


def test_spaces_between_words_stay_where_each_piece_is_decoded_alone(sentencepiece: Any) -> None:
    the, cat, s = sentencepiece.convert_tokens_to_ids(["▁the", "▁cat", "s"])
    assert pieces(sentencepiece, [the, cat], [the, cat, s]) == [" the", " cat", "s", ""]


# ── stop strings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def stopped(stops: list[str], *texts: str) -> tuple[list[str], str | None]:
    filter = StopStrings(stops)
    out = []
    for text in texts:
        out.append(filter.push(text))
        if filter.found is not None:
            return out, filter.found
    return [*out, filter.rest()], None


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert stopped([], "a", "b") == (["a", "b", ""], None)


def test_text_ends_before_the_stop_string() -> None:
    assert stopped(["END"], "one END two") == (["one "], "END")


def test_a_stop_string_across_pieces_is_found() -> None:
    assert stopped(["END"], "one E", "N", "D two") == (["one ", "", ""], "END")


def test_what_only_began_like_a_stop_string_comes_out() -> None:
    assert stopped(["END"], "one E", "Nx", "EN") == (["one ", "ENx", "", "EN"], None)


def test_only_what_may_become_a_stop_string_is_held() -> None:
    assert stopped(["\n\n"], "a\n", "b") == (["a", "\nb", ""], None)


def test_the_first_of_several_stop_strings_counts() -> None:
    assert stopped(["two", "one"], "x one two") == (["x "], "one")


def test_a_stop_string_may_stay_in_the_text() -> None:
    for cut in range(9):
        filter = StopStrings(["stop"], keeps=True)
        said = filter.push("a stop b"[:cut])
        said += filter.push("a stop b"[cut:]) if filter.found is None else ""
        assert (said, filter.found) == ("a stop", "stop")


def test_what_stops_is_complete_only_after_it_was_armed() -> None:
    filter = StopStrings(["ab", "bcd"], armed=False)
    assert [filter.push("xab"), filter.push("ab")] == ["xa", "ba"]
    assert filter.found is None
    filter.armed = True
    assert filter.push("c") + filter.push("d") == "" and filter.found == "bcd"


def test_a_word_is_known_before_its_last_token(tokenizer: Any) -> None:
    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    forbids = BadWords(tokenizer, ["\u00e9t\u00e9", "no"])
    for text, is_bad in (("an \u00e9t\u00e9", True), ("an \u00e9t", False), ("is no", True), ("is on", False)):
        *before, last = ids(text)
        assert forbids(before, last) is is_bad


def test_a_bad_word_in_byte_tokens_is_known_within_a_run_of_them(sentencepiece: Any) -> None:
    *before, last = sentencepiece.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in "ខ្មែរ".encode()])
    assert BadWords(sentencepiece, ["រ"])(before, last) and not BadWords(sentencepiece, ["ម"])(before[-3:], last)


def test_overlap_is_the_longest_beginning() -> None:
    assert overlap("aab", "abab") == 2
    assert overlap("abab", "abab") == 2  # all of it would have been found
    assert overlap("xyz", "abc") == 0
