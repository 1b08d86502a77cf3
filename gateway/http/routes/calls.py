"""The one or n calls behind one answer, and their values as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from ...errors import InvalidOutput, TooLarge
from ...runners.call import Call
from ...wire.frames import Resp
from ...wire.values import encode
from ...wording import counted

Batch = tuple[int, list[Any], int]  # the index of the call, the values that are ready, and their size in bytes
Pumped = tuple[int, list[Any] | None, int, Exception | None]


def weight_of(value: Any, most: int) -> int:
    """Return the bytes that a value has at least when it is encoded. Above `most`, the rest is not counted.

    No part weighs more than it had in a JSON body, but what occurs several times is counted each time.
    """
    total, left = 0, [value]
    while left and total <= most:
        each = left.pop()
        if isinstance(each, str):
            total += 1 + (len(each) if each.isascii() else len(each.encode("utf-8", "surrogatepass")))
        elif isinstance(each, dict):
            total += 1
            left += each
            left += each.values()
        elif isinstance(each, list):
            if _HEAVY.isdisjoint(map(type, each)):
                total += len(each)  # numbers
            else:
                left += each
            total += 1
        else:
            total += 1 + (len(each) if isinstance(each, bytes) else 0)
    return total


_HEAVY = frozenset({str, dict, list, bytes})


def weigh(all_inputs: list[dict[str, Any]], size: int, limit: int) -> int:
    """Return the bytes of a request that becomes these calls: `size`, or what the calls have, whichever is more.

    They are counted before they are encoded: conversions repeat references to what a client sent, and do not copy it.

    Raises:
        TooLarge: several calls have more than `limit` bytes together, or one that has become larger than its request.
    """
    count, most = len(all_inputs), limit if len(all_inputs) > 1 else max(limit, size)
    if count * size * size <= 4 * most:  # at most half of the request is repeated for each byte of the other half
        return size
    total, known = 0, dict[int, int]()
    for inputs in all_inputs:
        for name, value in inputs.items():
            if id(value) not in known:
                known[id(value)] = weight_of(value, most)
            total += len(name) + known[id(value)]
        if total > most:
            raise _too_large(count, limit)
    return max(size, total)


def _too_large(count: int, limit: int) -> TooLarge:
    if count == 1:
        what, advice = f"this request becomes a call larger than {counted(limit, 'byte')}", "send less at once"
    else:
        what = f"this request is {count} calls, together larger than {counted(limit, 'byte')}"
        advice = "send fewer choices or prompts at once, or shorter ones"
    return TooLarge(f"{what} (`max_queued_bytes`); {advice}")


class Bodies:
    """The bodies of the calls of one request. What the calls share is encoded once, for many calls as for one.

    A body is put together when it is asked for: those of calls that are not admitted never exist.
    """

    def __init__(self, all_inputs: list[dict[str, Any]], limit: int) -> None:
        """
        Raises:
            TooLarge: several calls have more than `limit` bytes together.
            OverflowError: an integer does not fit into 64 bits.
        """
        first, *others = all_inputs
        if not others:
            self._parts: list[tuple[bytes | memoryview, ...]] = [(encode(first),)]
            return
        names = {name for name, value in first.items() if all(each.get(name, self) is value for each in others)}
        shared = _content({name: value for name, value in first.items() if name in names})
        self._parts, total = [], 0
        for inputs in all_inputs:
            own = _content({name: value for name, value in inputs.items() if name not in names})
            self._parts.append((_head(len(inputs)), shared, own))
            total += sum(map(len, self._parts[-1]))
            if total > limit:
                raise _too_large(len(all_inputs), limit)

    def of(self, number: int) -> bytes:
        """Return the body of one call; the one body of a single call is not copied."""
        return b"".join(self._parts[number])


def _content(fields: dict[str, Any]) -> memoryview:
    """Return the names and values of an encoded map, without its head."""
    return memoryview(encode(fields))[len(_head(len(fields))) :]


def _head(fields: int) -> bytes:
    """Return the head of a map in msgpack."""
    if fields < 16:
        return bytes((0x80 | fields,))
    return b"\xde" + fields.to_bytes(2, "big") if fields < 1 << 16 else b"\xdf" + fields.to_bytes(4, "big")


class Together:
    """Several calls of one client, watched as one."""

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
        """The longest wait of the calls that got a slot, or of all if none did."""
        return max(call.waited for call in [call for call in self._calls if call.has_slot] or self._calls)

    @property
    def batched_at(self) -> float:
        return min((call.batched_at for call in self._calls if call.batched_at), default=0.0)

    @property
    def ended(self) -> bool:
        return all(call.ended for call in self._calls)

    def client_left(self) -> None:
        for call in self._calls:
            call.client_left()

    def abandon(self, error: BaseException) -> None:
        for call in self._calls:
            call.abandon(error)

    def outlives(self, then: Callable[[], None]) -> bool:
        """Return whether code of a call still runs. If so, `then` is called when the code of all has stopped."""
        left = 0

        def one_less() -> None:
            nonlocal left
            left -= 1
            if not left:
                then()

        left = sum([call.outlives(one_less) for call in self._calls])
        return bool(left)


async def heads(calls: list[Call]) -> list[Resp]:
    """Return the heads of the calls once each running call has output.

    Calls that still wait for a slot are left out: earlier calls may not finish until their output is read.

    Raises:
        GatewayError, ClientLeft: a call ended before its head.
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
        await asyncio.gather(*tasks, return_exceptions=True)  # retrieves the exceptions of all calls that failed


async def values(calls: list[Call]) -> AsyncGenerator[Batch, None]:
    """Yield the values of all calls in the order of arrival, at most one batch of each ahead of the reader.

    Raises:
        GatewayError, ClientLeft: a call failed.
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
        yield 0, [call.reply], call.taken
        return
    before = 0
    while (items := await call.take()) is not None:
        yield 0, items, call.taken - before
        before = call.taken


async def _merged(calls: list[Call]) -> AsyncGenerator[Batch, None]:
    queue: asyncio.Queue[Pumped] = asyncio.Queue(maxsize=1)  # when full, the workers stop: they get no credit
    tasks = [asyncio.create_task(_pump(number, call, queue)) for number, call in enumerate(calls)]
    try:
        running = len(calls)
        while running:
            number, items, size, error = await queue.get()
            if error is not None:
                raise error
            if items is None:
                running -= 1
            else:
                yield number, items, size
    finally:
        for task in tasks:
            task.cancel()


async def _pump(number: int, call: Call, queue: asyncio.Queue[Pumped]) -> None:
    try:
        async with aclosing(values([call])) as batches:
            async for _, items, size in batches:
                await queue.put((number, items, size, None))
    except Exception as error:
        await queue.put((number, None, 0, error))
    else:
        await queue.put((number, None, 0, None))
