"""One request of the engine: its answer so far, and the rules for what follows."""

from __future__ import annotations

from collections.abc import Sequence

from gateway_language.sampling import Record, Sampling, Score

from . import guided
from .turns import Rules, Scored


class Request:
    """A prompt and its answer. Knows no server."""

    def __init__(
        self, prompt: Sequence[int], limit: int, ends: frozenset[int], settings: Sampling, record: Record
    ) -> None:
        self.prompt, self.limit, self.ends = list(prompt), limit, ends
        self.settings, self.record = settings, record
        self.answer: list[int] = []
        self.is_over = False
        self.unnamed = 0  # tokens that the last turn has chosen but not named
        self._barred: set[int] = set()  # tokens that would complete a forbidden text at this place, or break a form

    @property
    def tokens(self) -> list[int]:
        return [*self.prompt, *self.answer]

    @property
    def is_barred(self) -> bool:
        return bool(self._barred)

    @property
    def goes_on(self) -> bool:
        """Return whether another turn is needed although the last one has added nothing."""
        return self.is_barred or self.unnamed > 0

    def forced(self) -> int | None:
        """Return the next token if there is only one to choose."""
        allowed = self.settings.may_follow(self.answer)
        return allowed[0] if len(allowed) == 1 else None

    def rules(self) -> Rules:
        if (guide := self.settings.guide) is not None:
            return guided.rules(self, guide, strays=self.is_barred)
        allowed = tuple(self.settings.may_follow(self.answer))
        barred = frozenset(self._barred)
        return Rules(self.settings, len(self.answer), self.limit, self.ends, allowed, barred, self.unnamed)

    def take(self, found: Scored) -> list[int]:
        """Add tokens to the answer, up to its end or to a forbidden one; return those that were added."""
        kept = []
        for token, score in found:
            if self.settings.forbids and token not in self.ends and self.settings.forbids(self.answer, token):
                self._barred.add(token)
                break
            if not guided.takes(self, token):
                self._barred.add(token)
                break
            self.add(token, score)
            kept.append(token)
            if self.is_over:
                break
        return kept

    def add(self, token: int, score: Score | None = None) -> None:
        self._barred.clear()
        self.answer.append(token)
        if self.settings.logprobs is not None:
            self.record.answer.append(score)
        is_complete = self.settings.guide is not None and self.settings.guide.is_over
        self.is_over = token in self.ends or len(self.answer) == self.limit or is_complete
