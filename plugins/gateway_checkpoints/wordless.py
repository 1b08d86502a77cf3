"""Detect tokenizers without a vocabulary.

If files are missing, transformers creates one with only special tokens, which makes all texts equal: a model would
answer each of them alike, without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway import ConfigError, check_ordinary, opened, parse_json, peek_json

from . import unloadable
from .named import say_names

VOCABULARIES = ("tokenizer.json", "*.model", "vocab*", "spiece*", "tekken.json", "*.tiktoken")
SENTENCEPIECE = ("sentencepiece", "google.protobuf")  # modules with which transformers reads a *.model
READ_WHOLE = frozenset(".json .txt .model .tiktoken .jinja .vocab .bpe .codes".split())  # files read completely
LARGEST = 128 << 20  # bytes of one file; a tokenizer.json with 250,000 words has a quarter of it
MOST_VALUES = 8_000_000  # values in it
SPARE = 1000  # rows that weights may have beyond their tokenizer: padding, and reserved tokens


def check(place: Path, *, trusted: bool = False) -> None:
    """Raise `ConfigError` if the tokenizer of a folder is missing, or has no vocabulary.

    A tokenizer.json is read with the tokenizers library, which is fast; older formats need transformers. In a `trusted`
    folder, the tokenizer may be code, which runs at the load and not here.
    """
    say_large(place)
    file = place / "tokenizer.json"
    if file.is_file() and find_spec("tokenizers"):
        from tokenizers import Tokenizer

        try:
            with opened(file) as written:
                found = Tokenizer.from_buffer(written.read())
        except Exception as error:  # the library raises plain Exception
            raise no_tokenizer(place, error) from error
        found.no_padding()  # turns off any padding set in the file, which is irrelevant here
        special = {token.content for token in found.get_added_tokens_decoder().values()}
        _say(place, lambda text: found.encode(text).ids, found.get_vocab(), special, rows(place))
        return
    if trusted:
        return
    check_ordinary(place)
    say_names(place)
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a class raises for missing files
        raise no_tokenizer(place, error) from error
    say_wordless(place, tokenizer, rows(place))


def say_large(place: Path) -> None:
    """Raise `ConfigError` for an excessively large tokenizer file: libraries read all of it."""
    for file in sorted(filter(Path.is_file, place.iterdir())):
        if file.suffix in READ_WHOLE and file.stat().st_size > LARGEST:
            raise unloadable(place, f"{file.name} has more than {LARGEST:,} bytes: get it again")


def say_wordless(place: Path, tokenizer: Any, size: int | None) -> None:
    """Raise `ConfigError` for a transformers tokenizer that is useless or does not fit.

    That is, it gives the same tokens for all texts, or has far fewer tokens than `size`, the rows of the embedding
    matrix.
    """
    special = {*tokenizer.all_special_tokens, *map(str, tokenizer.added_tokens_decoder.values())}
    _say(place, lambda text: tokenizer(text)["input_ids"], tokenizer.get_vocab(), special, size)


def no_tokenizer(place: Path, error: object) -> ConfigError:
    """Return advice for a tokenizer that cannot be loaded: the library may name a package that would not help."""
    files = _files(place)
    if not files:
        return unloadable(place, "it has no tokenizer (tokenizer.json, or what older kinds have): get its files")
    if "tokenizer.json" in files:
        try:  # the library's message may be unclear
            with opened(place / "tokenizer.json") as written:
                parse_json(written.read(), MOST_VALUES)
        except (OSError, ValueError) as broken:
            error = broken
    model = next((name for name in files if name.endswith(".model")), None)
    if "tokenizer.json" not in files and model and not all(map(_is_installed, SENTENCEPIECE)):
        return unloadable(place, f"{model} is a tokenizer of SentencePiece; run: pip install sentencepiece protobuf")
    return unloadable(place, f"its tokenizer ({', '.join(files)}) cannot be read ({error}): get its files again")


def rows(place: Path) -> int | None:
    """Return the vocabulary size in the folder's config.json."""
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
        what = f"its tokenizer ({', '.join(files)}) has no vocabulary, so all texts would be the same to it"
        raise unloadable(place, f"{what}: get its files again")
    if size is not None and size - len(vocabulary) > max(SPARE, size // 2):
        what = f"its tokenizer has {len(vocabulary):,} tokens, but its weights have {size:,}"
        raise unloadable(place, f"{what}: it is incomplete, or of another model: get its files again")


def _texts(vocabulary: Collection[str], special: Collection[str]) -> Iterator[str]:
    """Yield letters, which most tokenizers distinguish, and words of this vocabulary."""
    yield from "aei1"
    words = [word for token in vocabulary if token not in special and (word := token.strip("▁Ġ#@")).isalnum()]
    yield from words[:: max(1, len(words) // 64)]


def _files(place: Path) -> list[str]:
    return sorted({file.name for name in VOCABULARIES for file in place.glob(name)})


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # raised for its parent
        return False
