"""The calls behind one answer, one or n of them, and their values as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from ..call import Call
from ..errors import InvalidOutput, TooLarge
from ..wire import Resp, encode
from ..wording import counted

Batch = tuple[int, list[Any]]  # the run, and what it has to say by now
Pumped = tuple[int, list[Any] | None, Exception | None]


def check_together(runs: list[dict[str, Any]], first: int, limit: int) -> None:
    """Refuse the calls of one request before the second is encoded, when together they are too large.

    Each holds all the fields that they share, so that many are many times the request; of the others only what they do
    not share is looked at. `first` is the size of the first.

    Raises:
        TooLarge: they have more than `limit` bytes.
        OverflowError: one of them holds an integer that does not fit 64 bits.
    """
    shown, total = runs[0], first * len(runs)
    for inputs in runs[1:]:
        own = [name for name, value in inputs.items() if shown.get(name) is not value]
        total += sum(len(encode(inputs[name])) - len(encode(shown.get(name))) for name in own)
    if total > limit:
        what = f"this request is {len(runs)} calls, together larger than {counted(limit, 'byte')}"
        raise TooLarge(f"{what} (`max_queued_bytes`); send fewer choices or prompts at once, or shorter ones")


class Together:
    """Several calls of one client."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls

    @property
    def has_slot(self) -> bool:
        return any(call.has_slot for call in self._calls)

    @property
    def has_begun(self) -> bool:
        return any(call.has_begun for call in self._calls)

    @property
    def waited(self) -> float:
        """The longest wait of those that got a slot, of all when none did."""
        return max(call.waited for call in [call for call in self._calls if call.has_slot] or self._calls)

    def client_left(self) -> None:
        for call in self._calls:
            call.client_left()

    def abandon(self, error: BaseException) -> None:
        for call in self._calls:
            call.abandon(error)

    def outlives(self, then: Callable[[], None]) -> bool:
        """Whether code of one still runs; then `then` is called when that of all has stopped."""
        left = 0

        def one_less() -> None:
            nonlocal left
            left -= 1
            if not left:
                then()

        left = sum([call.outlives(one_less) for call in self._calls])
        return bool(left)


async def heads(calls: list[Call]) -> list[Resp]:
    """The heads of the calls, when each that runs has something to say.

    Those that still wait for a slot are left out: the calls before them may not end until somebody reads them.

    Raises:
        GatewayError, ClientLeft: one of them ended before it had.
    """
    if len(calls) == 1:
        return [await calls[0].first()]
    tasks = {asyncio.create_task(call.first()): call for call in calls}
    waiting = set(tasks)
    try:
        while len(waiting) == len(tasks) or any(tasks[task].has_slot for task in waiting):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return [task.result() for task in tasks if task not in waiting]
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # those of calls that failed together are all looked at


async def values(calls: list[Call]) -> AsyncGenerator[Batch, None]:
    """The values of every call, in the order in which they come; never more ahead of the reader than one batch each.

    Raises:
        GatewayError, ClientLeft: one of them broke off.
    """
    if len(calls) > 1:
        async with aclosing(_merged(calls)) as batches:
            async for batch in batches:
                yield batch
        return
    call = calls[0]
    head = await call.first()
    if head.raw:
        raise InvalidOutput("the model returned a Response, which cannot be one of several choices")
    if not head.stream:
        yield 0, [call.reply]
        return
    while (items := await call.take()) is not None:
        yield 0, items


async def _merged(calls: list[Call]) -> AsyncGenerator[Batch, None]:
    queue: asyncio.Queue[Pumped] = asyncio.Queue(maxsize=1)  # a full one holds the workers back, by their credit
    tasks = [asyncio.create_task(_pump(run, call, queue)) for run, call in enumerate(calls)]
    try:
        running = len(calls)
        while running:
            run, items, error = await queue.get()
            if error is not None:
                raise error
            if items is None:
                running -= 1
            else:
                yield run, items
    finally:
        for task in tasks:
            task.cancel()


async def _pump(run: int, call: Call, queue: asyncio.Queue[Pumped]) -> None:
    try:
        async with aclosing(values([call])) as batches:
            async for _, items in batches:
                await queue.put((run, items, None))
    except Exception as error:
        await queue.put((run, None, error))
    else:
        await queue.put((run, None, None))
