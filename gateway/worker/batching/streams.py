"""Streams of a batch: a generator yields one list for each step, with an element for each item.

An element is the next item of its stream, None for nothing now, END (or `StopIteration`) for its end, or an exception
instance for its failure. When the generator has ended, so have all streams.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from ...spec import END
from ..calls.threads import Pool
from .isolation import checked

MOST_AHEAD = 1024  # items that a batch may be ahead of a slow client, before it waits for it


class Stream:
    """The stream of one item, as the async iterator that its call reads. Used on the event loop only.

    `leave` is awaited when the call is closed before its end; it returns when no code runs for the item any more.
    """

    def __init__(self, leave: Callable[[], Awaitable[None]]) -> None:
        self._leave = leave
        self._items: deque[Any] = deque()
        self._error: BaseException | None = None
        self._changed: asyncio.Future[None] | None = None  # for the reader: an element or the end
        self._taken: asyncio.Future[None] | None = None  # for the batch: the reader took an element, or has left
        self.is_over = False  # nothing follows
        self.is_gone = False  # nobody reads it

    @property
    def is_open(self) -> bool:
        return not (self.is_over or self.is_gone)

    def put(self, element: Any) -> None:
        """Take an element of a step."""
        if element is END or element is StopIteration or isinstance(element, StopIteration):
            self.end()
        elif isinstance(element, BaseException):
            self.end(element)
        elif element is not None:
            self.append(element)

    def append(self, item: Any) -> None:
        self._items.append(item)
        _wake(self._changed)

    def end(self, error: BaseException | None = None) -> None:
        self.is_over, self._error = True, error
        _wake(self._changed)

    async def room(self) -> None:
        """Wait until its client has read enough, or has left."""
        while len(self._items) >= MOST_AHEAD and not self.is_gone:
            self._taken = asyncio.get_running_loop().create_future()
            await self._taken

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self.is_over:
                raise StopAsyncIteration
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
        _wake(self._taken)
        return self._items.popleft()

    async def aclose(self) -> None:
        if self.is_open:
            self.is_gone = True
            _wake(self._taken)
            await self._leave()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def play(
    name: str, steps: AsyncIterator[Any], streams: list[Stream], on_first: Callable[[], None], is_batched: bool = True
) -> None:
    """Pass on what a method yields until it ends or nobody reads any more. `on_first` is called before the first step.

    If it `is_batched` a step is a list with an element for each stream, otherwise the next item of the only one.

    Raises:
        Exception: it failed before its first step. A later failure ends the streams that are open.
    """
    has_begun = False
    try:
        async for step in steps:
            elements = checked(name, step, len(streams)) if is_batched else [step]
            if not has_begun:
                has_begun = True
                on_first()
            for stream, element in zip(streams, elements, strict=True):
                if stream.is_open:
                    (stream.put if is_batched else stream.append)(element)
            if not any(stream.is_open for stream in streams):
                break
            for stream in streams:
                await stream.room()
    except Exception as error:
        if not has_begun:
            raise
        _end(streams, error)
    finally:
        if (close := getattr(steps, "aclose", None)) is not None:
            await close()
    if not has_begun:
        on_first()
    _end(streams)


def _end(streams: list[Stream], error: BaseException | None = None) -> None:
    for stream in streams:
        if stream.is_open:
            stream.end(error)


async def stepped(pool: Pool, steps: Iterator[Any]) -> AsyncIterator[Any]:
    """Iterate a generator on a thread, and close it there. The return value is its last step, unless it is None."""
    try:
        while True:
            step, is_last = await pool.run(_next, steps)
            if not is_last or step is not None:
                yield step
            if is_last:
                return
    finally:
        if inspect.isgenerator(steps):
            await pool.run(steps.close)


def _next(steps: Iterator[Any]) -> tuple[Any, bool]:
    try:
        return next(steps), False
    except StopIteration as end:
        return end.value, True
