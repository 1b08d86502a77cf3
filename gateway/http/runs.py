"""The calls behind one answer, one or n of them, and their values as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ..call import Call
from ..wire import Resp, decode

Batch = tuple[int, list[Any]]  # the run, and what it has to say by now
Pumped = tuple[int, list[Any] | None, Exception | None]


async def heads(calls: list[Call]) -> list[Resp]:
    """The head of every call, when each has something to say.

    Raises:
        GatewayError, ClientLeft: one of them ended before it had.
    """
    if len(calls) == 1:
        return [await calls[0].first()]
    return await asyncio.gather(*(call.first() for call in calls))


async def values(calls: list[Call]) -> AsyncGenerator[Batch, None]:
    """The values of every call, in the order in which they come; never more ahead of the reader than one batch each."""
    if len(calls) > 1:
        async with aclosing(_merged(calls)) as batches:
            async for batch in batches:
                yield batch
        return
    call = calls[0]
    assert call.head is not None
    if not call.head.stream:
        yield 0, [decode(call.reply)]
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
