"""Turn the tokens of one request into what its method yields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from .answer import Answer
from .logprobs import Logprobs
from .text import TextStream
from .tools import Event

RAW = tuple("\ufeff\r\n:deir")  # a str that begins like this could be taken for server-sent events


class Reply:
    """The reply to one request. `reason` is None until the answer ends for another reason than its length.

    Stop strings end it after `least` tokens. With `keeps_stop`, the text that ended it is included.
    """

    def __init__(
        self,
        text: TextStream,
        answer: Answer,
        stop_ids: frozenset[int],
        logprobs: Logprobs | None,
        *,
        least: int = 0,
        keeps_stop: bool = False,
    ) -> None:
        self._text, self._answer, self._stop_ids, self._logprobs = text, answer, stop_ids, logprobs
        self._least, self._keeps_stop = least, keeps_stop
        self.count = 0  # tokens
        self.thoughts = 0  # tokens before the answer itself
        self.reason: str | None = None

    def read(self, tokens: Iterable[int]) -> Iterator[Event]:
        return self._shown([event for token in tokens for event in self._push(token)])

    def finish(self) -> Iterator[Event]:
        """Return what was held back, at the end of the tokens."""
        rest = self._text.rest()
        rest = rest if self._logprobs is None else self._logprobs.rest(rest)
        yield from self._shown([*self._answer.push(rest), *self._answer.finish()])
        yield from () if self._logprobs is None else self._logprobs.finish()

    def usage(self, prompt: int, cached: int) -> dict[str, Any]:
        """Return the counts so far. `prompt` and `cached` are numbers of tokens."""
        usage: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": self.count,
            "total_tokens": prompt + self.count,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        if self._answer.may_think:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.thoughts}
        return usage

    def ending(self, prompt: int, cached: int) -> dict[str, Any]:
        """Return the last event, with the counts of the whole answer."""
        called = self.reason == "stop" and self._answer.has_calls
        reason = "tool_calls" if called else self.reason or "length"
        ending: dict[str, Any] = {"finish_reason": reason, "usage": self.usage(prompt, cached)}
        if self._answer.stop is not None:
            ending["stop_sequence"] = self._answer.stop
        return ending

    def _push(self, token: int) -> list[Event]:
        if self.reason is not None:
            return []
        self.count += 1
        if self.count > self._least:
            self._answer.arm_stops()
        if token in self._stop_ids:
            self.reason = "stop"
        text = self._text.push(token) if self.reason is None or self._keeps_stop else ""
        events = self._answer.push(text if self._logprobs is None else self._logprobs.place(token, text))
        if self.reason is not None:
            return events
        if self._answer.is_thinking:
            self.thoughts = self.count
        if self._answer.is_over:
            self.reason = "stop"
        return events

    def _shown(self, events: Iterable[Event]) -> Iterator[Event]:
        """Join consecutive texts, with their log probabilities."""
        for is_text, some in groupby(events, lambda event: isinstance(event, str)):
            if not is_text:
                yield from some
                continue
            texts = [text for text in some if isinstance(text, str)]
            event = "".join(texts) if self._logprobs is None else self._logprobs.beside(texts)
            yield {"content": event} if isinstance(event, str) and event.startswith(RAW) else event
