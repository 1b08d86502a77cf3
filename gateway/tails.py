"""The last lines of every model's output, and those who follow them as they come.

Kept by the model's name: they outlive its workers, a reload, and a directory that was broken and is mended.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from . import model_log
from .wording import counted

TAIL = 200  # lines that are kept of each model
AHEAD = 10_000  # lines that a follower may lag behind; what is more is dropped and counted


class Line(NamedTuple):
    number: int  # in the order of all models' lines
    model: str
    text: str
    at: float  # seconds since 1970


class Tails:
    """Of all models of a gateway, whose log they are written to as well."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Line]] = {}
        self._followers: set[Follower] = set()
        self._count = 0

    def add(self, model: str, text: str) -> None:
        """A line of a model's output, or about it; or the lines of one traceback."""
        self.note(model, text)
        model_log.write(model, text)

    def note(self, model: str, text: str) -> None:
        """The same for what the gateway's own log has said already."""
        now = time.time()
        kept = self._lines.setdefault(model, deque(maxlen=TAIL))
        for line in text.split("\n"):
            self._count += 1
            kept.append(Line(self._count, model, line, now))
            for follower in self._followers:
                follower.take(kept[-1])

    def forget(self, model: str) -> None:
        """Keep nothing of a model that is gone."""
        self._lines.pop(model, None)

    def of(self, model: str) -> list[str]:
        """Its last lines."""
        return [line.text for line in self._lines.get(model, ())]

    def last(self, count: int, wants: Callable[[str], bool]) -> list[Line]:
        """The last lines of the models that are wanted, in their order."""
        found = sorted(line for model, lines in self._lines.items() if wants(model) for line in lines)
        return found[-count:] if count else []

    @contextmanager
    def follow(self, wants: Callable[[str], bool]) -> Iterator[Follower]:
        """Whoever hears of each new line of the models that are wanted, until the block ends."""
        follower = Follower(wants)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """No more will come: who follows hears of the end."""
        for follower in self._followers:
            follower.client_left()


class Follower:
    """New lines, for one who takes them."""

    has_slot, has_begun, waited = False, False, 0.0  # it is no call

    def __init__(self, wants: Callable[[str], bool]) -> None:
        self._wants = wants
        self._new: deque[Line] = deque()
        self._dropped = 0
        self._changed = asyncio.Event()
        self._is_over = False
        self.error: BaseException | None = None  # why it may follow no more

    def take(self, line: Line) -> None:
        if not self._wants(line.model):
            return
        if len(self._new) >= AHEAD:
            self._new.popleft()
            self._dropped += 1
        self._new.append(line)
        self._changed.set()

    async def lines(self) -> list[Line]:
        """What has come since the last time, when something has; nothing at the end."""
        await self._changed.wait()
        self._changed.clear()
        found, self._new = list(self._new), deque()
        if self._dropped:
            lost = f"... {counted(self._dropped, 'line')} dropped: they came faster than they were read"
            found.insert(0, Line(found[0].number, "", lost, found[0].at))
            self._dropped = 0
        if self._is_over:
            self._changed.set()
        return found

    def client_left(self) -> None:
        self._is_over = True
        self._changed.set()

    def abandon(self, error: BaseException) -> None:
        self.error = error
        self.client_left()

    def outlives(self, then: Callable[[], None]) -> bool:
        """Nothing runs for it."""
        return False
