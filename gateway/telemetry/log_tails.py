"""Keep the last output lines of every model, and stream new ones to followers.

Lines are kept by model name, so they survive restarts, reloads, and a directory that was broken and then repaired.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..wording import counted
from . import model_log

TAIL = 200  # lines kept for each model
AHEAD = 10_000  # lines that a follower may lag behind; older ones are dropped and counted


class Line(NamedTuple):
    number: int  # in one sequence over all models
    model: str
    text: str
    at: float  # seconds since 1970


class Tails:
    """The tails of all models of a gateway."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Line]] = {}
        self._followers: set[Follower] = set()
        self._count = 0

    def add(self, model: str, text: str) -> None:
        """Keep a line of a model's output, or about it, and write it to the gateway's log.

        May be a multi-line traceback.
        """
        self.note(model, text)
        model_log.write(model, text)

    def note(self, model: str, text: str) -> None:
        """Keep a line that the gateway's log has already."""
        now = time.time()
        kept = self._lines.setdefault(model, deque(maxlen=TAIL))
        for line in text.split("\n"):
            self._count += 1
            kept.append(Line(self._count, model, line, now))
            for follower in self._followers:
                follower.take(kept[-1])

    def forget(self, model: str) -> None:
        """Delete the lines of a model that is gone."""
        self._lines.pop(model, None)

    def of(self, model: str) -> list[str]:
        """Return the last lines of a model."""
        return [line.text for line in self._lines.get(model, ())]

    def last(self, count: int, wants: Callable[[str], bool]) -> list[Line]:
        """Return the last lines of the selected models, in order."""
        found = sorted(line for model, lines in self._lines.items() if wants(model) for line in lines)
        return found[-count:] if count else []

    @contextmanager
    def follow(self, wants: Callable[[str], bool]) -> Iterator[Follower]:
        """Return a follower that gets each new line of the selected models until the block ends."""
        follower = Follower(wants)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """End all followers; no more lines will come."""
        for follower in self._followers:
            follower.client_left()


class Follower:
    """A bounded queue of new lines for one reader."""

    has_slot, has_begun, waited, batched_at = False, False, 0.0, 0.0  # has the attributes of a call

    def __init__(self, wants: Callable[[str], bool]) -> None:
        self._wants = wants
        self._new: deque[Line] = deque()
        self._dropped = 0
        self._changed = asyncio.Event()
        self._is_over = False
        self.error: BaseException | None = None  # why it was ended

    def take(self, line: Line) -> None:
        if self._is_over or not self._wants(line.model):
            return
        if len(self._new) >= AHEAD:
            self._new.popleft()
            self._dropped += 1
        self._new.append(line)
        self._changed.set()

    async def lines(self) -> list[Line]:
        """Wait for new lines and return them; an empty list at the end."""
        found: list[Line] = []
        while not found and not (self._is_over and not self._new):
            await self._changed.wait()
            self._changed.clear()
            found = [line for line in self._new if self._wants(line.model)]  # the filter may have changed
            self._new.clear()
        if self._dropped and found:
            lost = f"... {counted(self._dropped, 'line')} dropped: they arrived faster than they were read"
            found.insert(0, Line(found[0].number, "", lost, found[0].at))
            self._dropped = 0
        return found

    @property
    def ended(self) -> bool:
        return self._is_over

    def client_left(self) -> None:
        self._is_over = True
        self._changed.set()

    def abandon(self, error: BaseException) -> None:
        """End it at once, without the lines that are queued."""
        self.error = error
        self._new.clear()
        self.client_left()

    def outlives(self, then: Callable[[], None]) -> bool:
        """Return False: no model code runs for it."""
        return False
