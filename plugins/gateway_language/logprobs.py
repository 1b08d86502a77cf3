"""Log probabilities of tokens in OpenAI's format, and the text that each belongs to."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

from .sampling import Record, Score
from .tools import Event
from .vocabulary import vocabulary


class Piece(str):
    """Text that knows its position in the answer, also after cutting or concatenation.

    So the code that splits an answer by tags, whitespace or stop strings need not know about tokens.
    """

    at: int

    def __new__(cls, text: str, at: int) -> Piece:
        piece = super().__new__(cls, text)
        piece.at = at
        return piece

    def __getitem__(self, key: SupportsIndex | slice) -> Piece:
        start = key.indices(len(self))[0] if isinstance(key, slice) else range(len(self))[key]
        return Piece(super().__getitem__(key), self.at + start)

    def __add__(self, other: str) -> Piece:
        return Piece(str(self) + str(other), self.at if self or not isinstance(other, Piece) else other.at)

    def __radd__(self, other: str) -> Piece:
        return Piece(str(other) + str(self), self.at - len(other))

    def lstrip(self, chars: str | None = None) -> Piece:
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None) -> Piece:
        return self[: len(super().rstrip(chars))]

    def partition(self, sep: str) -> tuple[Piece, Piece, Piece]:
        before, tag, _ = super().partition(sep)
        end = len(before) + len(tag)
        return self[: len(before)], self[len(before) : end], self[end:]

    def removeprefix(self, prefix: str) -> Piece:
        return self[len(self) - len(super().removeprefix(prefix)) :]


class Logprobs:
    """Log probabilities of the tokens of an answer's content, or of all tokens with `every`. Each is sent once.

    A token belongs to the content if a part of its text does, so tokens of tags and stop strings do not. It is sent
    with the first part of its text; with `every`, other tokens follow it, and the position of each token is included.
    Tokens that the engine has no score of are left out.
    """

    def __init__(self, tokenizer: Any, record: Record, *, every: bool = False) -> None:
        self._words, self._record, self._every = vocabulary(tokenizer), record, every
        self._count = 0  # tokens
        self._length = 0  # characters of their text
        self._begin = 0  # characters of the prompt before them
        self._waiting: deque[tuple[int, int, int]] = deque()  # number, start and end of a token

    def place(self, token: int, text: str) -> Piece:
        """Return the text that the answer's next token adds, with its position."""
        piece = self.rest(text)
        if text or self._every or not self._words.skips(token):
            self._waiting.append((self._count, piece.at, self._length))
        self._count += 1
        return piece

    def rest(self, text: str) -> Piece:
        """Return more text of earlier tokens, with its position."""
        piece = Piece(text, self._length)
        self._length += len(text)
        return piece

    def beside(self, pieces: Sequence[str]) -> Event:
        """Return pieces of content with the log probabilities of all their tokens that were not sent yet."""
        text = "".join(map(str, pieces))
        spans = [(piece.at, piece.at + len(piece)) for piece in pieces if isinstance(piece, Piece)]
        found = []
        while self._waiting and spans and self._waiting[0][1] < spans[-1][1]:
            number, start, end = self._waiting.popleft()
            end = max(end, start + 1)  # for a character of several tokens, the one with the last byte has the text
            if self._every or any(start < stop and begin < end for begin, stop in spans):
                found.append((number, start))
        return self._event(text, found) if found else text

    def finish(self) -> Iterable[Event]:
        """With `every`, return the tokens that were not sent with any text."""
        found = [(number, start) for number, start, _ in self._waiting] if self._every else []
        self._waiting.clear()
        return [self._event("", found)] if found else []

    def of_prompt(self, prompt: Sequence[int], text: str) -> dict[str, Any]:
        """Return those of a prompt that is echoed as this text. The first token has none: nothing precedes it."""
        self._begin = len(text)
        first = {**self._token(prompt[0]), "logprob": None, "top_logprobs": []}
        entries = [first, *(self._entry(score) for score in self._record.prompt)]
        places = self._places(prompt, text)
        return {"content": [{**entry, "text_offset": at} for entry, at in zip(entries, places, strict=True)]}

    def _places(self, prompt: Sequence[int], text: str) -> list[int]:
        """Return where each token begins in `text`, which may lack what the tokenizer added: `<s>`, a blank."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be several tokens
        at, places = 0, []
        for token in prompt:
            places.append(at)
            word = decoder.decode(self._words.bytes(token))
            if not text.startswith(word, at):
                bare = word.lstrip(" ")
                word = bare if text.startswith(bare, at) else "" if self._words.skips(token) else word
            at = min(at + len(word), len(text))
        return places

    def _event(self, text: str, found: Sequence[tuple[int, int]]) -> dict[str, Any]:
        known = [(score, start) for number, start in found if (score := self._record.answer[number]) is not None]
        entries = [self._entry(score) for score, _ in known]
        if self._every:
            for entry, (_, start) in zip(entries, known, strict=True):
                entry["text_offset"] = self._begin + start
        return {"content": text, "logprobs": {"content": entries}}

    def _entry(self, score: Score) -> dict[str, Any]:
        top = [{**self._token(token), "logprob": logprob} for token, logprob in score.top]
        return {**self._token(score.token), "logprob": score.logprob, "top_logprobs": top}

    def _token(self, token: int) -> dict[str, Any]:
        written = self._words.bytes(token)
        return {"token": written.decode("utf-8", "replace"), "bytes": list(written)}
