"""One call of llama.cpp's server: the rules for its tokens as JSON, and what it sends back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
from gateway_language.sampling import Sampling, Score

from .pieces import Pieces

ONLY = 1000.0  # added to the logits of the only allowed tokens; more would round away the differences between them
SEEDS = 2**32 - 1  # the largest one means a random seed
# The order of transformers: temperature before the tokens are cut.
SAMPLERS = ("penalties", "temperature", "top_k", "typ_p", "top_p", "min_p")
FINAL = ("tokens", "tokens_predicted")  # of the many fields of the last message

Scored = list[tuple[int, Score | None]]


@dataclass(frozen=True, slots=True)
class Rules:
    """How the tokens of a turn are chosen. `allowed` are the only ones, if any; `barred` may not come first.

    `unnamed` tokens were chosen by the turn before, which ended within a character, so it did not say which they were.
    """

    settings: Sampling
    at: int  # tokens of the answer before the turn
    limit: int  # tokens of the whole answer
    ends: frozenset[int]
    allowed: tuple[int, ...] = ()
    barred: frozenset[int] = frozenset()
    unnamed: int = 0
    grammar: str = ""  # of the whole answer, so only for a turn that begins it

    @property
    def count(self) -> int:
        """Return the most tokens to which these rules apply."""
        if self.allowed or self.barred:
            return 1
        if self.unnamed:
            return self.unnamed
        least = self.settings.min_tokens - self.at
        return min(least, self.limit - self.at) if least > 0 else self.limit - self.at

    @property
    def is_whole(self) -> bool:
        """Return whether the tokens come together at the end: then llama.cpp names all of them."""
        return bool(self.allowed or self.barred or self.unnamed)

    @property
    def is_last(self) -> bool:
        return self.at + self.count == self.limit

    def request(self, tokens: list[int], context: int) -> bytes:
        """Return the body of a completion that continues `tokens`; `context` is the number of tokens of a request."""
        asked = self.settings
        body: dict[str, Any] = {
            "prompt": tokens,
            "n_predict": self.count,
            "stream": not self.is_whole,
            "return_tokens": True,
            "cache_prompt": True,
            "verbose": True,  # has the tokens
            "response_fields": FINAL,
            "timings_per_token": self.at == 0,  # has the number of tokens that were in the cache
            "return_progress": True,  # or a request could not be cancelled while its prompt is read
            "logit_bias": self.bias(),
            **self.samplers(context),
        }
        if self.grammar:
            body["grammar"] = self.grammar
        if asked.logprobs is not None:
            body["n_probs"] = max(asked.logprobs, 1)
        return msgspec.json.encode(body)

    def bias(self) -> list[tuple[int, float | bool]]:
        asked = self.settings
        found: dict[int, float | bool] = dict(asked.logit_bias)
        only = self.allowed or asked.allowed or ()
        found |= {token: found.get(token, 0.0) + ONLY for token in only}
        if not self.allowed and self.at < asked.min_tokens:
            found |= dict.fromkeys(self.ends, False)
        return list((found | dict.fromkeys(self.barred, False)).items())

    def samplers(self, context: int) -> dict[str, Any]:
        asked = self.settings
        penalties = asked.presence_penalty, asked.frequency_penalty, asked.repetition_penalty
        names = SAMPLERS if penalties != (0, 0, 1) else SAMPLERS[1:]
        if asked.temperature == 0:
            names = ("penalties", "top_k") if names == SAMPLERS else ("top_k",)
        seed = {} if asked.seed is None else {"seed": (asked.seed + self.at) % SEEDS}
        return seed | {
            "samplers": names,
            "temperature": asked.temperature,
            "top_k": asked.top_k if asked.temperature else 1,
            "typical_p": asked.typical_p,
            "top_p": asked.top_p,
            "min_p": asked.min_p,
            "presence_penalty": asked.presence_penalty,
            "frequency_penalty": asked.frequency_penalty,
            "repeat_penalty": asked.repetition_penalty,
            "repeat_last_n": context if asked.repeat_last_n < 0 else asked.repeat_last_n,
        }


class _Likely(msgspec.Struct):
    id: int
    logprob: float


class _Token(msgspec.Struct):
    id: int
    logprob: float
    top_logprobs: list[_Likely]


class _Logprobs(msgspec.Struct):
    content: list[_Token] = []


class _Choice(msgspec.Struct):
    text: str = ""
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _More(msgspec.Struct):
    tokens: list[int] = []
    tokens_predicted: int = 0
    stop_type: str = ""


class _Timings(msgspec.Struct):
    cache_n: int = 0


class _Message(msgspec.Struct):
    choices: list[_Choice] = []
    more: _More | None = msgspec.field(name="__verbose", default=None)
    timings: _Timings | None = None
    error: dict[str, Any] | None = None


class Turn:
    """Receives the messages of one call on its thread, and gives their tokens to the event loop.

    After the last one, `failure` says whether it failed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pieces: Pieces, rules: Rules) -> None:
        self.cancelled = False  # read on the thread
        self.cached = 0  # tokens that were in the cache
        self.failure = ""
        self.unnamed = 0  # tokens at the end that llama.cpp has not named
        self._loop, self._pieces, self._rules = loop, pieces, rules
        self._inbox: deque[bytes] = deque()
        self._woken = asyncio.Event()
        self._is_waking = False
        self.is_over = False
        self._count = 0

    def __call__(self, data: bytes) -> bool:
        """Take a message, on the thread of the call. Returning True ends the call."""
        self._inbox.append(data)
        if not self._is_waking:
            self._is_waking = True
            self._wake()
        return self.cancelled

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:  # the loop is closed: no caller is left
            self.cancelled = True

    def cancel(self) -> None:
        """End the turn before its next token, on the loop."""
        self.cancelled = True
        self._woken.set()

    def ended(self, _: Any) -> None:
        """Say that the call has returned, on the loop."""
        self.is_over = True
        self._woken.set()

    async def __aiter__(self) -> AsyncIterator[Scored]:
        """Yield tokens as they come, until the call ends or is cancelled."""
        while not self.cancelled:
            await self._woken.wait()
            self._woken.clear()
            is_over, self._is_waking = self.is_over, False
            found: Scored = []
            while self._inbox:
                found += self._read(_decode(self._inbox.popleft()))
            if found:
                yield found
            if is_over:
                return

    def _read(self, message: _Message) -> Scored:
        if message.error is not None:
            self.failure = str(message.error.get("message", message.error))
        if message.timings is not None:
            self.cached = message.timings.cache_n
        more = message.more
        if more is None or not message.choices or not more.tokens_predicted:
            return []
        choice, count = message.choices[0], more.tokens_predicted - self._count
        self._count = more.tokens_predicted
        if choice.finish_reason is not None:
            return self._end(choice, more.tokens, count)
        *_, last = more.tokens
        found = self._pieces.missing(choice.text, last, count - 1)
        return [*((token, None) for token in found), (last, self._score(choice))]

    def _end(self, choice: _Choice, tokens: list[int], count: int) -> Scored:
        """Return the tokens of the last message: all of a whole turn, or those of a character that is not complete."""
        if self._rules.is_whole:
            score = self._score(choice) if len(tokens) == 1 else None
            return [(token, score) for token in tokens]
        if count and self._rules.is_last:
            return [(self._pieces.none, None)] * count
        self.unnamed = count
        return []

    def _score(self, choice: _Choice) -> Score | None:
        if self._rules.settings.logprobs is None or choice.logprobs is None or not choice.logprobs.content:
            return None
        told = choice.logprobs.content[-1]
        top = told.top_logprobs[: self._rules.settings.logprobs]
        return Score(told.id, told.logprob, tuple((each.id, each.logprob) for each in top))


_decode = msgspec.json.Decoder(_Message).decode
