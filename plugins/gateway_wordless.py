"""Tokenizers that know no words. Where files are missing transformers makes one of nothing but special tokens, to which
all texts are the same: a model would answer each of them alike, and never with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway_checkpoints import unloadable

from gateway import ConfigError, check_ordinary, opened, parse_json, peek_json

VOCABULARIES = ("tokenizer.json", "*.model", "vocab*", "spiece*", "tekken.json", "*.tiktoken")
SENTENCEPIECE = ("sentencepiece", "google.protobuf")  # modules by which transformers reads a *.model
READ_WHOLE = frozenset(".json .txt .model .tiktoken .jinja .vocab .bpe .codes".split())  # of what tokenizers are made
LARGEST = 128 << 20  # bytes of one; a tokenizer.json of a quarter of a million words has a quarter of it
MOST_VALUES = 8_000_000  # in it
SPARE = 1000  # rows that weights may have beyond their tokenizer: padding, and room for tokens to come


def check(place: Path, *, trusted: bool = False) -> None:
    """Raise `ConfigError` where the tokenizer of a folder cannot be had, or knows no words.

    A tokenizer.json is read by the library for such files, which is quick; older kinds take transformers. Of a folder
    that is `trusted`, a tokenizer may be code, which runs at its load and not here.
    """
    say_large(place)
    file = place / "tokenizer.json"
    if file.is_file() and find_spec("tokenizers"):
        from tokenizers import Tokenizer

        try:
            with opened(file) as written:
                found = Tokenizer.from_buffer(written.read())
        except Exception as error:  # which is what the library raises
            raise no_tokenizer(place, error) from error
        special = {token.content for token in found.get_added_tokens_decoder().values()}
        _say(place, lambda text: found.encode(text).ids, found.get_vocab(), special, rows(place))
        return
    if trusted:
        return
    check_ordinary(place)
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a class says of files that are not there
        raise no_tokenizer(place, error) from error
    say_wordless(place, tokenizer, rows(place))


def say_large(place: Path) -> None:
    """Raise `ConfigError` for a file of a tokenizer that is far larger than any: libraries read all of it."""
    for file in sorted(filter(Path.is_file, place.iterdir())):
        if file.suffix in READ_WHOLE and file.stat().st_size > LARGEST:
            raise unloadable(place, f"{file.name} has more than {LARGEST:,} bytes: get it again")


def say_wordless(place: Path, tokenizer: Any, size: int | None) -> None:
    """Raise `ConfigError` where a tokenizer of transformers makes the same tokens of all texts, or knows far fewer than
    `size`, the rows of the matrix that its ids choose from.
    """
    special = {*tokenizer.all_special_tokens, *map(str, tokenizer.added_tokens_decoder.values())}
    _say(place, lambda text: tokenizer(text)["input_ids"], tokenizer.get_vocab(), special, size)


def no_tokenizer(place: Path, error: object) -> ConfigError:
    """What to do about a tokenizer that cannot be loaded: the library may name a package that would not help."""
    files = _files(place)
    if not files:
        return unloadable(place, "it has no tokenizer (tokenizer.json, or what older kinds have): get its files")
    if "tokenizer.json" in files:
        try:  # libraries put it in words of their own
            with opened(place / "tokenizer.json") as written:
                parse_json(written.read(), MOST_VALUES)
        except (OSError, ValueError) as broken:
            error = broken
    model = next((name for name in files if name.endswith(".model")), None)
    if "tokenizer.json" not in files and model and not all(map(_is_installed, SENTENCEPIECE)):
        return unloadable(place, f"{model} is a tokenizer of SentencePiece; run: pip install sentencepiece protobuf")
    return unloadable(place, f"its tokenizer ({', '.join(files)}) cannot be read ({error}): get its files again")


def rows(place: Path) -> int | None:
    """How many tokens the weights of a folder know, as its config.json says."""
    try:
        config = peek_json(place / "config.json")
        size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    except (OSError, ValueError, AttributeError):
        return None
    return size if type(size) is int else None


def _say(
    place: Path,
    encode: Callable[[str], Iterable[int]],
    vocabulary: Collection[str],
    special: Collection[str],
    size: int | None,
) -> None:
    texts = _texts(vocabulary, special)
    first = list(encode(next(texts)))
    if all(list(encode(text)) == first for text in texts):
        files = _files(place)
        if not files:
            raise no_tokenizer(place, "")
        what = f"its tokenizer ({', '.join(files)}) knows no words, so that all texts would be the same to it"
        raise unloadable(place, f"{what}: get its files again")
    if size is not None and size - len(vocabulary) > max(SPARE, size // 2):
        what = f"its tokenizer knows {len(vocabulary):,} tokens, and its weights {size:,}"
        raise unloadable(place, f"{what}: it is not whole, or that of another model: get its files again")


def _texts(vocabulary: Collection[str], special: Collection[str]) -> Iterator[str]:
    """Letters, which most tokenizers tell apart, and words of this one."""
    yield from "aei1"
    words = [word for token in vocabulary if token not in special and (word := token.strip("▁Ġ#@")).isalnum()]
    yield from words[:: max(1, len(words) // 64)]


def _files(place: Path) -> list[str]:
    return sorted({file.name for name in VOCABULARIES for file in place.glob(name)})


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False
