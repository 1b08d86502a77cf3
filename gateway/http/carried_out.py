"""Orders that have begun go on to their end, though the request that gave them ends with its key.

A load or an unload that stops half-way would leave the model in neither state, and its line of the audit log would say
that it was given up. `Exchange.end` cancels only the task of the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_orders: set[asyncio.Task[Any]] = set()


async def carried_out(order: Coroutine[Any, Any, T]) -> T:
    """Return the result of an order. If the caller is cancelled, the order goes on; it must not answer the request."""
    task = asyncio.ensure_future(order)
    _orders.add(task)
    task.add_done_callback(_has_ended)
    await asyncio.wait([task])  # asyncio.shield would log the error of an order that nobody waits for any more
    return task.result()


def _has_ended(order: asyncio.Task[Any]) -> None:
    _orders.discard(order)
    if not order.cancelled():
        order.exception()  # mark it as retrieved: the audit log tells it
