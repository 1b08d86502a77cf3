from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from gateway_lm_text import BadWords, StopStrings, TextStream, TokenBytes, overlap  # noqa: E402

TEXTS = [
    "plain words, and  two spaces",
    "naïve café: 你好, мир 😀👍🏽!",
    "\n\n  def f(x):\n\treturn x + 1\n",
    "x" * 100,
    "🏳️‍🌈" * 5,
]


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def sentencepiece() -> Any:
    """A tokenizer whose words begin with a mark for the space before them, as Llama 2's do."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    words = ["<unk>", "▁the", "▁cat", "s", "▁", "▁sat", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, [], byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def pieces(tokenizer: Any, prompt: list[int], tokens: list[int]) -> list[str]:
    stream = TextStream(tokenizer, prompt)
    return [*(stream.push(token) for token in tokens), stream.rest()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_whole_text_and_are_never_half_a_character(tokenizer: Any, text: str) -> None:
    prompt = tokenizer("<|user|>hello<|end|><|assistant|>")["input_ids"]
    streamed = pieces(tokenizer, prompt, tokenizer(text)["input_ids"])
    assert "".join(streamed) == text
    assert not any("\ufffd" in piece for piece in streamed)
    assert streamed[-1] == ""


def test_a_character_comes_as_a_whole_with_its_last_byte(tokenizer: Any) -> None:
    assert pieces(tokenizer, [], tokenizer("a😀b")["input_ids"]) == ["a", "", "", "", "😀", "b", ""]


def test_a_character_that_was_cut_off_is_dropped(tokenizer: Any) -> None:
    assert "".join(pieces(tokenizer, [], tokenizer("ab😀")["input_ids"][:-1])) == "ab"


def test_a_prompt_that_ends_within_a_character_is_no_trouble(tokenizer: Any) -> None:
    tokens = tokenizer("😀 yes")["input_ids"]
    assert "".join(pieces(tokenizer, tokens[:2], tokens[2:])).endswith(" yes")


def test_special_tokens_are_no_text(tokenizer: Any) -> None:
    tokens = tokenizer("one<|user|>two")["input_ids"]
    assert "".join(pieces(tokenizer, [], tokens)) == "onetwo"


def test_special_tokens_that_are_markup_are_text(tokenizer: Any) -> None:
    tokens = tokenizer("one<|user|>two<|end|>")["input_ids"]
    stream = TextStream(tokenizer, [], {tokenizer.convert_tokens_to_ids("<|user|>"): "<|user|>"})
    assert "".join(map(stream.push, tokens)) == "one<|user|>two"


def test_tokens_are_told_as_their_bytes(tokenizer: Any, sentencepiece: Any) -> None:
    for text in TEXTS:
        tokens = tokenizer(text)["input_ids"]
        assert b"".join(map(TokenBytes(tokenizer), tokens)) == text.encode()
    assert TokenBytes(tokenizer)(tokenizer.eos_token_id) == b"<|end|>"
    assert TokenBytes(tokenizer)(len(tokenizer) + 5) == b""
    assert list(map(TokenBytes(sentencepiece), [1, 3, 6 + 0xE4])) == [b" the", b"s", b"\xe4"]


def test_spaces_between_words_stay_where_each_piece_is_decoded_alone(sentencepiece: Any) -> None:
    assert pieces(sentencepiece, [1, 2], [5, 1, 2, 3]) == [" sat", " the", " cat", "s", ""]


def test_bytes_of_a_sentencepiece_vocabulary_make_whole_characters(sentencepiece: Any) -> None:
    tokens = [1, *(6 + byte for byte in "é你".encode()), 2]
    assert [piece for piece in pieces(sentencepiece, [1], tokens) if piece] == [" the", "é", "你", " cat"]


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
    assert filter.found is None and filter.holds_back
    filter.armed = True
    assert filter.push("c") + filter.push("d") == "" and filter.found == "bcd"


def test_a_word_is_known_before_its_last_token(tokenizer: Any) -> None:
    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    forbids = BadWords(tokenizer, ["\u00e9t\u00e9", "no"])
    for text, is_bad in (("an \u00e9t\u00e9", True), ("an \u00e9t", False), ("is no", True), ("is on", False)):
        *before, last = ids(text)
        assert forbids(before, last) is is_bad


def test_overlap_is_the_longest_beginning() -> None:
    assert overlap("aab", "abab") == 2
    assert overlap("abab", "abab") == 2  # all of it would have been found
    assert overlap("xyz", "abc") == 0
