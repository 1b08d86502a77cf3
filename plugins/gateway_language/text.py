"""Decode tokens to text as they are generated, and find where the text must stop."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from .vocabulary import LOST, vocabulary

BEFORE = 5  # preceding tokens that a new one is decoded with: its text depends on them
WINDOW = 16  # tokens after which the oldest are dropped, so that decoding stays cheap


class TextStream:
    """The text that tokens add to the prompt's, decoded together with it. Never ends within a character.

    A character that the prompt began belongs to the added text. `markup` maps special tokens that are shown as text;
    all others are skipped.

    Decoders depend on preceding tokens, so tokens are decoded in a window. Bytes of a ByteFallback wait outside it
    until they form a character, because an incomplete one would spoil complete characters next to it; bytes that never
    form one are only lost themselves.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], markup: Mapping[int, str] | None = None) -> None:
        self._tokenizer, self._words = tokenizer, vocabulary(tokenizer)
        self._markup = markup or {}
        self._open(prompt)

    def push(self, token: int) -> str:
        """Return the text that the token adds; "" while a character is incomplete."""
        if token in self._markup:
            return self.rest() + self._markup[token]
        if self._words.skips(token):
            return ""
        if self._words.is_bytes_alone:
            return self._utf8.decode(self._words.bytes(token))
        if not self._take(token) or not self._words.is_local:
            return ""
        piece = self._news(self._whole())
        if len(self._window) > WINDOW:
            self._open([*self._window, *self._half])
        return piece

    def rest(self) -> str:
        """Return what was held back: for an incomplete character, what the tokenizer writes for its bytes."""
        if self._words.is_bytes_alone:
            return self._utf8.decode(b"", final=True)
        self._lose(len(self._half))
        return self._news(self._words.decode(self._window))

    def begun(self, prompt: Sequence[int]) -> str:
        """Return the prompt's own text with special tokens, but without a character that is still incomplete."""
        text = str(self._tokenizer.decode(prompt[: len(prompt) - len(self._half)]))
        return text.removesuffix(LOST) if self._utf8.getstate()[0] else text

    def _open(self, tokens: Sequence[int]) -> None:
        """Start a window with the last tokens, enough to have text: decoders treat the start of a text specially."""
        for count in (BEFORE, None) if self._words.is_local else (None,):
            said = (token for token in reversed(tokens) if not self._words.skips(token))
            self._window: list[int] = []
            self._half: list[int] = []  # bytes of one character, in a ByteFallback
            self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
            for token in reversed(list(islice(said, count))):
                self._take(token)
            text = self._whole()
            if text:
                break
        self._shown = len(text)  # characters of the window's text

    def _take(self, token: int) -> bool:
        """Add the token to the window, or hold it back until its character is complete. Return whether it has grown."""
        before = len(self._window)
        if self._words.is_bytes:
            self._utf8.decode(self._words.bytes(token))
        if token not in self._words.falls_back:
            self._lose(len(self._half))
            self._window.append(token)
            return True
        self._half.append(token)
        while self._half:
            try:
                bytes(self._words.falls_back[half] for half in self._half).decode()
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data":
                    break
                self._lose(error.end)
            else:
                self._window += self._half
                self._half = []
        return len(self._window) > before

    def _lose(self, count: int) -> None:
        """Give up on the first bytes that were held back: they form no character."""
        self._window += self._words.lost * count or self._half[:count]
        self._half = self._half[count:]

    def _whole(self) -> str:
        """Return the window's text up to its last complete character."""
        text = self._words.decode(self._window)
        half = self._utf8.getstate()[0] if self._words.is_known else text.endswith(LOST)
        return text.removesuffix(LOST) if half else text

    def _news(self, text: str) -> str:
        piece = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return piece


class StopStrings:
    """Text up to the first stop string, or including it. Only holds back what may still become one.

    While it is not `armed`, nothing stops; a stop string that is completed later does, wherever it began.
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

    def rest(self) -> str:
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are a proper prefix of `stop`."""
    return next((count for count in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:count])), 0)


class BadWords:
    """Whether a token would complete one of the words, in the text of an answer that contains none so far."""

    def __init__(self, tokenizer: Any, words: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        self._words = tuple(word.lstrip() or word for word in words)  # also at the beginning of a line
        self._before = max((len(word.encode()) for word in self._words), default=0)  # a token is at least one byte

    def __call__(self, answer: Sequence[int], token: int) -> bool:
        tokens = [*answer[max(0, len(answer) - self._before) :], token]
        stream = TextStream(self._tokenizer, ())  # the first token may be half a character
        text = "".join([*map(stream.push, tokens), stream.rest()])
        return any(word in text for word in self._words)
