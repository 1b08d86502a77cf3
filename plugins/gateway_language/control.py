"""Treat control tokens in a client's text as text; only those written by the chat template are control tokens.

A tokenizer converts every `<|im_end|>` to the control token, whether the template or the client wrote it. If a request
contains one, the template gets a random number instead, and the result is read by a second tokenizer in which control
tokens have other names. Other requests only pay for a search.

Messages of the assistant keep the tags that answers show: clients send back what they received.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, groupby, takewhile
from operator import itemgetter
from typing import Any

from .requests import THOUGHTS

SAID = ("content", *THOUGHTS)  # the assistant's own text in a message
NOTHING = re.compile(r"(?!)")
DIGITS = 20  # of an unguessable number
EVEN, ODD = "02468", str.maketrans("02468", "13579")
SAMPLED = 64  # control tokens used to compare the second tokenizer with the first
MARKUP = re.compile(r"[^\w\s].*\w.*[^\w\s]", re.DOTALL)  # a word between symbols, as in <think> or [INST]
# If not special, these are part of a language: gemma's vocabulary has those of HTML, all have byte tokens.
WORDS = re.compile(
    r"</?(?:table|caption|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|i|u|s|sub|sup|code)>|<0x[0-9A-F]{2}>"
)

Json = dict[str, Any]
Request = tuple[list[Json], Json]  # messages, and the template's other arguments


class Control:
    """Detects control tokens in requests. `spoken` are those that answers show although they are special tokens."""

    def __init__(self, tokenizer: Any, spoken: Iterable[str] = ()) -> None:
        self._tokenizer, self._backend = tokenizer, getattr(tokenizer, "backend_tokenizer", None)
        added = getattr(tokenizer, "added_tokens_decoder", {}).values() if tokenizer.chat_template else ()
        tokens = [token for token in added if is_control(token.content, is_special=token.special)]
        self._texts = [token.content for token in tokens]
        shown = {*spoken, *(token.content for token in tokens if not token.special)}
        normalizer = getattr(self._backend, "normalizer", None)
        self._all = Finder(tokens, normalizer)
        self._unspoken = Finder([token for token in tokens if token.content not in shown], normalizer)
        self._names = names(self._texts)
        self._second = self._read_otherwise() if self._texts else None
        self._has_warned = False
        if self._texts and self._second is None:
            self.warn("its tokenizer cannot tell one from the other")

    def hidden(self, messages: list[Json], options: Json) -> Hidden | None:
        """Return the request with numbers for its control tokens; None if it has none, or if that is not possible."""
        if self._second is None:
            return None
        parts = [(self.finder(message, name), value) for message in messages for name, value in message.items()]
        found = {text for finder, value in [*parts, (self._all, options)] for text in finder.found(value)}
        return Hidden(self, messages, options, sorted(found)) if found else None

    def finder(self, message: Mapping[str, Any] | None = None, name: str = "") -> Finder:
        """Return the finder for this part of a message, or for everything else."""
        is_said = message is not None and message.get("role") == "assistant" and name in SAID
        return self._unspoken if is_said else self._all

    def ids(self, text: str, put_back: Callable[[str], str], *, special: bool) -> list[int]:
        """Return the token ids of the template's output; `put_back` inserts the client's text into it."""
        named = self._all.pattern.sub(lambda found: self._names[found[0]], text)
        ids: list[int] = self._second.encode(put_back(named), add_special_tokens=special).ids
        return ids

    def warn(self, why: str) -> None:
        """Print a warning to the model's log, once."""
        if not self._has_warned:
            print(f"warning: a control token that a client writes into a message is a real one for this model: {why}")
        self._has_warned = True

    def _read_otherwise(self) -> Any:
        """Return the same tokenizer with other names for its control tokens; None if that is not possible."""
        from tokenizers import Tokenizer

        if not callable(getattr(self._backend, "to_str", None)):
            return None
        try:
            second = Tokenizer.from_str(json.dumps(renamed(json.loads(self._backend.to_str()), self._names)))
        except Exception:  # the library has no specific exception class
            return None
        return second if self._is_alike(second) else None

    def _is_alike(self, second: Any) -> bool:
        """Return whether it reads the new names as the first one reads the old ones, and the old names as text."""
        sample = "".join(f"a{text} b \n{text}c" for text in self._texts[:SAMPLED])
        named = self._all.pattern.sub(lambda found: self._names[found[0]], sample)
        # not the backend itself: it keeps the options of its last call
        first = self._tokenizer(sample, add_special_tokens=False, verbose=False)["input_ids"]
        plain = set(second.encode(sample, add_special_tokens=False).ids)
        unknown = getattr(self._backend.model, "unk_token", None)  # used for any letter that is not in a vocabulary
        control = {self._backend.token_to_id(text) for text in self._texts if text != unknown}
        return second.encode(named, add_special_tokens=False).ids == first and not plain & control


class Hidden:
    """A request with numbers for its control tokens, which can be put back if the template does not split numbers.

    To check this, it is rendered twice, with even and with odd digits. Without the numbers, both results must have the
    same parts, in any order: some templates sort.
    """

    def __init__(self, control: Control, messages: list[Json], options: Json, texts: list[str]) -> None:
        self._control, self._messages, self._options = control, messages, options
        key = _even(secrets.randbelow(5**DIGITS), DIGITS)
        width = next(width for width in count() if 5**width >= len(texts))
        self._of_even = {key + _even(index, width): text for index, text in enumerate(texts)}
        self._of_odd = {number.translate(ODD): text for number, text in self._of_even.items()}

    @property
    def shown(self) -> str:
        """Return the first few of the hidden texts, for a message."""
        return ", ".join(list(self._of_even.values())[:3])

    def requests(self) -> tuple[Request, Request]:
        return self._request(self._of_even), self._request(self._of_odd)

    def _request(self, texts: Mapping[str, str]) -> Request:
        finder, numbers = self._control.finder, {text: number for number, text in texts.items()}
        messages = [
            {name: finder(message, name).replaced(value, numbers) for name, value in message.items()}
            for message in self._messages
        ]
        return messages, finder().replaced(self._options, numbers)

    def ids(self, even: str, odd: str, *, special: bool) -> list[int] | None:
        """Return the token ids of both template results; None if the client's text cannot be put back."""
        if Counter(_put_back(even, self._of_even)) != Counter(_put_back(odd, self._of_odd)):
            return None
        return self._control.ids(even, partial(_put_back, texts=self._of_even), special=special)


def _even(number: int, width: int) -> str:
    """Write a number with the five even digits."""
    return "".join(EVEN[number // 5**place % 5] for place in range(width))


def _put_back(text: str, texts: Mapping[str, str]) -> str:
    number = next(iter(texts))
    pattern = f"{number[:DIGITS]}[0-9]{{{len(number) - DIGITS}}}"
    return re.sub(pattern, lambda found: texts.get(found[0], found[0]), text)


class Finder:
    """Finds the texts of control tokens, including those that a normalizer produces from other letters."""

    def __init__(self, tokens: Sequence[Any], normalizer: Any) -> None:
        self.pattern = any_of(token.content for token in tokens)
        self._normalize, self._normal = None, NOTHING
        if normalizer is not None and any(token.normalized for token in tokens):
            self._normalize = normalizer.normalize_str
            texts = (self._normalize(token.content) for token in tokens if token.normalized)
            self._normal = any_of(text.strip("\u2581 ") for text in texts)  # blanks that it puts before a text

    def found(self, value: Any) -> Iterator[str]:
        """Yield what must be hidden in a value and everything inside it."""
        if isinstance(value, str):
            if self._is_whole(value):
                yield value.strip()
            else:
                yield from self.pattern.findall(value)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from self.found(key)
                yield from self.found(item)
        elif isinstance(value, list):
            for item in value:
                yield from self.found(item)

    def replaced(self, value: Any, numbers: Mapping[str, str]) -> Any:
        if isinstance(value, str):
            if self._is_whole(value):
                return value.replace(value.strip(), numbers[value.strip()])
            return self.pattern.sub(lambda found: numbers[found[0]], value)
        if isinstance(value, Mapping):
            return {self.replaced(key, numbers): self.replaced(item, numbers) for key, item in value.items()}
        return [self.replaced(item, numbers) for item in value] if isinstance(value, list) else value

    def _is_whole(self, text: str) -> bool:
        """Return whether a whole text must be hidden, because its normalized form contains a token."""
        return self._normalize is not None and self._normal.search(self._normalize(text)) is not None


def names(texts: Sequence[str]) -> dict[str, str]:
    """Return a new, unguessable name for each text, which no normalizer changes."""
    key = secrets.token_hex(8)
    return {text: f"{key}{number}x" for number, text in enumerate(texts)}


def is_control(text: str, *, is_special: bool) -> bool:
    if is_special:
        return bool(text.strip())
    return MARKUP.fullmatch(text) is not None and WORDS.fullmatch(text) is None


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches the longest of the texts."""
    known = sorted({*texts} - {""})
    return re.compile(_any_of(known)) if known else NOTHING


def _any_of(texts: list[str]) -> str:
    """Return a pattern as a prefix tree: some vocabularies have thousands of similar texts. The texts are sorted."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(texts[0], texts[-1], strict=False)))
    rest = [text[same:] for text in texts]
    branches = [_any_of(list(alike)) for _, alike in groupby(filter(None, rest), key=itemgetter(0))]
    more = f"(?:{'|'.join(branches)})" if branches else ""
    return re.escape(texts[0][:same]) + (f"{more}?" if more and "" in rest else more)


def renamed(tokenizer: Json, names: Mapping[str, str]) -> Json:
    """Return a tokenizer.json in which these texts have other names."""
    model = tokenizer["model"]
    tokenizer.update(truncation=None, padding=None)
    for token in tokenizer["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        for text in names.keys() & vocabulary.keys():
            vocabulary[names[text]] = vocabulary.pop(text)
    else:  # Unigram, with scores
        model["vocab"] = [[names.get(text, text), score] for text, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if merges := model.get("merges"):  # otherwise a text would be merged into the token
        model["merges"] = [pair for pair in merges if not {*pair, "".join(pair)} & names.keys()]
    return tokenizer
