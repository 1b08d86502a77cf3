from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("tokenizers")

import gguf_cases as cases
from gateway_language.gguf import tokenizer as it

from gateway import ConfigError

ANSWERS: dict[str, Any] = json.loads(cases.ANSWERS.read_text("utf-8"))
FILES = dict(cases.files(ANSWERS["vocabularies"]))
EXPECTED = {name: group["ids"] for group in ANSWERS["ids"] for name in group["files"]}
ENDINGS = dict(cases.endings())


def rebuilt(said: dict[str, Any]) -> Any:
    return it.rebuild(said, it.read_vocabulary(said))


def with_bytes(**more: Any) -> dict[str, Any]:
    return cases.metadata(ANSWERS["vocabularies"]["bytes"], "bytes", **more)


def test_every_case_has_an_answer_of_llama_cpp() -> None:
    assert FILES.keys() == EXPECTED.keys()
    assert ENDINGS.keys() == ANSWERS["ends"].keys()


@pytest.mark.parametrize("name", FILES)
def test_the_ids_are_those_of_llama_cpp(name: str) -> None:
    tokenizer = rebuilt(FILES[name])
    for text, expected in zip(cases.ALL_TEXTS, EXPECTED[name], strict=True):
        if name.startswith("words") and "\u2581" in text:
            continue  # the mark of a word's beginning, which llama.cpp matches inside words too
        assert tokenizer.encode(text).ids == [int(token) for token in expected.split()], text


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("words")])
def test_a_wordpiece_vocabulary_without_kinds_gives_the_same_ids(name: str) -> None:
    said = {key: value for key, value in FILES[name].items() if key != "tokenizer.ggml.token_type"}
    tokenizer, with_kinds = rebuilt(said), rebuilt(FILES[name])
    unknown = said["tokenizer.ggml.unknown_token_id"]
    for text in (*cases.ALL_TEXTS, "\U0001fae0 \u1000"):
        if "[" in text:
            continue  # the texts of special tokens, which nothing marks as such
        assert tokenizer.encode(text).ids == with_kinds.encode(text).ids, text
    assert unknown in tokenizer.encode("\U0001fae0").ids


@pytest.mark.parametrize("name", ENDINGS)
def test_an_answer_ends_where_llama_cpp_ends_it(name: str) -> None:
    assert sorted(it.read_vocabulary(ENDINGS[name]).ends) == ANSWERS["ends"][name]


def test_the_end_that_a_file_does_not_name_is_a_control_token_or_none() -> None:
    said = with_bytes(pre="gpt-2")
    del said["tokenizer.ggml.eos_token_id"]
    assert it.read_vocabulary(said).ends == frozenset()  # token 11, a letter here, would end answers in llama.cpp


@pytest.mark.parametrize("pre", ["", "smollm3", "Llama-BPE", "whitespace"])
def test_an_unknown_way_to_cut_is_refused_by_its_name(pre: str) -> None:
    said = with_bytes(pre=pre)
    if not pre:
        assert rebuilt(said).encode("a").ids  # a file that says nothing means the first of them
        return
    with pytest.raises(ConfigError, match=f"cuts words by '{pre}'.*known are default, llama3"):
        rebuilt(said)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "t5"}, "of the kind 't5'.*gpt2, gemma4, llama, bert"),
        ({"model": None}, "of the kind None"),
        ({"tokens": []}, "is empty"),
        ({"tokens": ["a", "b", "a"], "token_type": [1, 1, 1]}, "holds one token twice"),
        ({"token_type": [1]}, "tokenizer.ggml.token_type is 1, that"),
        ({"merges": None}, "has no merges"),
        ({"merges": ["q z", "qz qz"]}, "'qz'.*no token it has|'q' and 'z'"),
        (
            {"add_eos_token": True, "eos_token_id": 10**9, "tokens": ["a", "b"], "token_type": [1, 1], "merges": []},
            "eos",
        ),
    ],
)
def test_a_vocabulary_that_cannot_be_rebuilt_says_why(change: dict[str, Any], why: str) -> None:
    said = with_bytes(pre="gpt-2") | {f"tokenizer.ggml.{name}": value for name, value in change.items()}
    with pytest.raises(ConfigError, match=why):
        rebuilt(said)


@pytest.mark.parametrize("pre", ["glm4", "chatglm-bpe"])
def test_a_vocabulary_without_a_beginning_begins_with_nothing(pre: str) -> None:
    said = with_bytes(pre=pre)
    said.pop("tokenizer.ggml.bos_token_id", None)
    ids = rebuilt(said | {"tokenizer.ggml.add_bos_token": False})
    assert ids.encode("ab").ids == ids.encode("ab", add_special_tokens=False).ids


def test_what_was_read_is_written_again() -> None:
    for name in ("pre llama-bpe", "pre qwen2", "gemma4", "pieces", "pieces no space"):
        tokenizer = rebuilt(FILES[name])
        for text in ("Hello world", "naïve café 12\n\n\tx", "你好 😀", " a  b"):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert tokenizer.decode(ids, skip_special_tokens=False) == text, name


def test_tokens_of_phi_3_take_the_blanks_behind_them() -> None:
    said = with_bytes(pre="gpt-2") | {"general.name": "Phi-3 mini"}
    tokenizer = rebuilt(said)
    assert tokenizer.encode("<|user|>  \n hi").ids == tokenizer.encode("<|user|>hi").ids
    assert rebuilt(with_bytes(pre="gpt-2")).encode("<|user|> hi").ids != tokenizer.encode("<|user|> hi").ids
