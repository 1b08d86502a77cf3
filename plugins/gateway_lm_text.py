"""Text from tokens as they come, and where it has to stop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BEFORE = 5  # tokens that a new one is decoded together with: what it reads as depends on them
WINDOW = 16  # tokens after which the oldest are let go, so that decoding stays cheap
HALF = "\ufffd"  # what the bytes of an incomplete character decode to


class TextStream:
    """Never half a character, and spaces as in the whole text.

    `markup` are special tokens that are text here; all others say nothing.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], markup: Mapping[int, str] | None = None) -> None:
        self._tokenizer = tokenizer
        self._markup = markup or {}
        self._tokens = list(prompt[-BEFORE:])
        self._shown = self._decode()

    def push(self, token: int) -> str:
        """What the token adds; nothing while a character is incomplete."""
        if token in self._markup:
            piece = self.rest() + self._markup[token]
            self._tokens.append(token)
            self._shown = self._decode()
            return piece
        self._tokens.append(token)
        text = self._decode()
        if text.endswith(HALF):
            return ""
        piece = text[len(self._shown) :]
        if len(self._tokens) > WINDOW:
            self._tokens = self._tokens[-BEFORE:]
            text = self._decode()
        self._shown = text
        return piece

    def rest(self) -> str:
        """What was held back and is text after all; a character that never became whole is dropped."""
        return self._decode().rstrip(HALF)[len(self._shown) :]

    def _decode(self) -> str:
        return self._tokenizer.decode(self._tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class StopStrings:
    """Text up to the first stop string, or with it. Holds back only what may still become one.

    While it is not `armed`, nothing stops; a stop string that is complete only later does, wherever it began.
    """

    def __init__(self, stops: Iterable[str], *, keeps: bool = False, armed: bool = True) -> None:
        self._stops = tuple(stops)
        self._keeps = keeps
        self.armed = armed
        self._held = ""
        self.found: str | None = None

    def push(self, piece: str) -> str:
        text, new = self._held + piece, len(self._held)
        found = [(at, stop) for stop in self._stops if (at := text.find(stop, max(0, new + 1 - len(stop)))) >= 0]
        if found and self.armed:
            at, self.found = min(found)
            self._held = ""
            return text[: at + len(self.found) if self._keeps else at]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    @property
    def holds_back(self) -> bool:
        return bool(self._held)

    def rest(self) -> str:
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`, short of all of it."""
    return next((count for count in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:count])), 0)


class BadWords:
    """Whether a token would complete one of the words in the text of an answer that has none of them so far."""

    def __init__(self, tokenizer: Any, words: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        self._words = tuple(words)
        self._before = max((len(word.encode()) for word in self._words), default=0)  # a token is a byte at least

    def __call__(self, answer: Sequence[int], token: int) -> bool:
        tokens = [*answer[max(0, len(answer) - self._before) :], token]
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return any(word in text for word in self._words)


class TokenBytes:
    """The bytes that single tokens stand for: of half a character, half of its bytes."""

    def __init__(self, tokenizer: Any) -> None:
        decoder = tokenizer.backend_tokenizer.decoder
        self._tokenizer = tokenizer
        self._added = tokenizer.added_tokens_decoder
        self._bytes = byte_letters() if decoder is not None and b"ByteLevel" in decoder.__getstate__() else {}

    def __call__(self, token: int) -> bytes:
        if token in self._added:
            return str(self._added[token].content).encode()
        written = self._tokenizer.convert_ids_to_tokens(token) or ""  # a model may have more rows than tokens
        if self._bytes.keys() >= set(written):
            return bytes(self._bytes[letter] for letter in written)
        if len(written) == 6 and written.startswith("<0x"):
            return bytes([int(written[3:5], 16)])
        return written.replace("\u2581", " ").encode()


def byte_letters() -> dict[str, int]:
    """The letters that byte-level vocabularies are written with: printable bytes as they are, others from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + at): byte for at, byte in enumerate(others)}}
