"""What the gateway holds of websocket messages: all that was read from clients and that no model has taken.

Bytes count from the moment they are read, so that a message counts before it is complete. After each read:
1. All together have at most a third of the limit for bodies: the client is read on.
2. Otherwise it waits in line and is not read, for no longer than a call may wait.
3. All together have half of the limit for bodies: the newest that waits is given up.

When there is room, those in line are read on, first in, first out. Models make room, except of unfinished messages,
which no model ever takes. If most of the room is taken by those:
4. Messages that hardly arrive are given up, the most silent first: clients that send only parts would keep the room.
5. If none does, the first in line is read on anyway, until its message is complete: many that arrive together would
   otherwise all wait for each other.
One message may be larger than all this, if nothing else is held.

One decision ends before the next begins: a connection that is given up releases what it holds, and counts again, while
the line is still gone through. And what a connection does when it is told costs that connection, never who released
bytes: that may be the channel of another client's model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .shares import Shares

log = logging.getLogger("gateway.http")

READ = 256 << 10  # bytes: the most that the event loop reads from a connection at once
SILENT, SLOW = 1.0, 10.0  # seconds without a read, and for a message: then it hardly arrives
AGAIN = 10  # seconds
NOT_TAKEN = f"models have too many messages to take; try again in {AGAIN} s"
UNFINISHED = f"too many unfinished messages; try again in {AGAIN} s"


class Messages:
    """The messages of one gateway."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self.size = 0  # bytes; also part of `shares.bytes`
        self.unfinished = 0  # those of unfinished messages, part of `size`
        self._arriving: dict[Arriving, None] = {}  # connections with unfinished messages
        self._line: dict[Arriving, None] = {}  # those that wait, oldest first
        self._favoured: Arriving | None = None  # the one that is read on although there is no room
        self._is_deciding = False

    def add(self, size: int) -> None:
        """Count the bytes of a message that is complete."""
        self.size += size
        self._shares.bytes += size

    def let_go(self, size: int) -> None:
        """Release the bytes of messages that were taken or dropped, and read those on that wait for room."""
        self.add(-size)
        self._decide(None)

    def count(self, connection: Arriving, more: int) -> None:
        """Count more, or less, of an unfinished message."""
        self.unfinished += more
        self.add(more)
        if connection.unfinished:
            self._arriving[connection] = None
        else:
            self._arriving.pop(connection, None)

    def make_room(self, connection: Arriving) -> None:
        """Decide what happens after more was read from a connection."""
        if self.size <= self._most or connection.is_alone:
            return
        if connection is not self._favoured:
            self._line[connection] = None
            connection.wait()
        self._decide(connection)

    def _decide(self, connection: Arriving | None) -> None:
        """Give up what has no room, then read on what has. `connection` is the one that was read, if one was."""
        if self._is_deciding:  # the decision that is being made looks at the line again
            return
        self._is_deciding = True
        try:
            if connection is not None:
                self._give_up_newest(connection)
            self._read_on()
        finally:
            self._is_deciding = False

    def _give_up_newest(self, connection: Arriving) -> None:
        self._drop_stale()
        bound = max(self._shares.max_bytes // 2, self._most + READ)
        while self.size > bound and self._line:
            next(reversed(self._line)).drop(UNFINISHED if self._are_mostly_unfinished else NOT_TAKEN)
        if self.size > bound and connection.unfinished and not connection.is_alone:
            connection.drop(UNFINISHED)

    def _read_on(self) -> None:
        while self._line:
            self._drop_stale()
            if not self._line:  # all that waited were stale, or have left meanwhile
                return
            first = next(iter(self._line))
            if self.size > self._most and not first.is_alone:
                if self._favoured is not None or not self._are_mostly_unfinished:
                    return
                self._favoured = first
            del self._line[first]
            first.resume(first is self._favoured)

    def _drop_stale(self) -> None:
        """Make room of messages that hardly arrive, if there are others that wait for it."""
        if self.size <= self._most or not self._are_mostly_unfinished:
            return
        now = asyncio.get_running_loop().time()
        stale = [each for each in self._arriving if each.hardly_arrives(now)]
        for each in sorted(stale, key=lambda each: each.last):
            if self.size <= self._most or not self._are_mostly_unfinished:
                return
            if each in self._arriving:  # it has not left meanwhile
                each.drop(UNFINISHED)

    def leave(self, connection: Arriving) -> None:
        """Forget that it waits, or that it is favoured."""
        self._line.pop(connection, None)
        if connection is self._favoured:
            self._favoured = None

    @property
    def _most(self) -> int:
        return self._shares.max_bytes // 3

    @property
    def _are_mostly_unfinished(self) -> bool:
        return self.unfinished > self.size // 2


class Arriving:
    """What was read from one connection and not yet passed on.

    `wake` is called when it may be read again, `end` with a reason when what it holds must be dropped and the
    connection closed. Both may call this object; what they raise is logged. It waits for at most `patience` seconds.
    """

    def __init__(
        self, messages: Messages, patience: float, wake: Callable[[], None], end: Callable[[str], None]
    ) -> None:
        self._messages, self._patience, self._wake, self._end = messages, patience, wake, end
        self.waits = False
        self.unfinished = 0  # bytes that were read and are in no complete message
        self.last = self._since = 0.0  # when it was read, and when its message began, or went on after a wait
        self._complete = 0  # bytes of complete messages
        self._promised = 0  # bytes that may be read next: otherwise all that wait would be read into the same room
        self._is_favoured = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_alone(self) -> bool:
        """Whether the gateway holds nothing else."""
        return self._messages.size == self.unfinished + self._promised

    def hardly_arrives(self, now: float) -> bool:
        """Whether its client, which may send, sends too little."""
        is_read = not self.waits and not self._complete  # behind a complete message, nothing is read
        return is_read and (now > self.last + SILENT or now > self._since + SLOW)

    def read(self, unfinished: int) -> None:
        """Count what was read. Afterwards, it may wait or have been given up."""
        self.last = asyncio.get_running_loop().time()
        if not self.unfinished:
            self._since = self.last
        self._messages.add(-self._promised)
        self._promised = 0
        if self._is_favoured:
            self._limit_favour()
        self._count(unfinished)
        self._messages.make_room(self)

    def parsed(self, unfinished: int) -> None:
        """Count what is left after messages were completed."""
        before = self.unfinished
        self._count(unfinished)
        promised = 0 if unfinished else self._promised
        self._promised -= promised
        if promised or unfinished < before:
            self._messages.let_go(promised)

    def completed(self, size: int) -> None:
        """Count a message until it is `taken`."""
        self._leave()
        self._complete += size
        self._messages.add(size)

    def taken(self) -> None:
        """Release the complete messages: somebody else counts them now."""
        size, self._complete = self._complete, 0
        self._since = self.last = asyncio.get_running_loop().time()
        self._messages.let_go(size)

    def close(self) -> None:
        """Release everything."""
        self._leave()
        self._count(0)
        size, self._complete, self._promised = self._complete + self._promised, 0, 0
        self._messages.let_go(size)

    # ── called by `Messages` ─────────────────────────────────────────────────────────────────────────────────────

    def drop(self, reason: str) -> None:
        self._leave()
        self._count(0)
        promised, self._promised = self._promised, 0
        self._messages.add(-promised)
        _tell(self._end, reason)

    def wait(self) -> None:
        if not self.waits:
            self.waits = True
            self._give_up_after(self._patience, NOT_TAKEN)

    def resume(self, is_favoured: bool) -> None:
        """Go on, for a limited time if others wait for this one."""
        self._stop_waiting()
        self._since = self.last = asyncio.get_running_loop().time()
        self._is_favoured = is_favoured
        if is_favoured:
            self._limit_favour()
        self._promised = READ
        self._messages.add(READ)
        _tell(self._wake)

    def _give_up(self, reason: str) -> None:
        self.drop(reason)
        self._messages.let_go(0)

    def _limit_favour(self) -> None:
        self._stop_waiting()
        self._give_up_after(min(SILENT, self._since + SLOW - self.last), UNFINISHED)

    def _give_up_after(self, seconds: float, reason: str) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._give_up, reason)

    def _stop_waiting(self) -> None:
        self.waits = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave(self) -> None:
        self._is_favoured = False
        self._stop_waiting()
        self._messages.leave(self)

    def _count(self, unfinished: int) -> None:
        more, self.unfinished = unfinished - self.unfinished, unfinished
        self._messages.count(self, more)


def _tell(callback: Callable[..., None], *args: str) -> None:
    try:
        callback(*args)
    except Exception as error:  # raised further, it would end whoever has released bytes
        log.error("a websocket could not be read on or ended", exc_info=error)
