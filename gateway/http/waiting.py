"""A request whose model is not ready yet: it may wait, and leaves when its client does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..call import ClientLeft
from .exchange import Exchange

if TYPE_CHECKING:
    from ..hosted import HostedModel


class Waiter:
    """Whoever waits for a model that has no call yet."""

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def client_left(self) -> None:
        self.abandon(ClientLeft())

    def abandon(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def outlives(self, then: Callable[[], None]) -> bool:
        """Nothing runs for it."""
        return False


async def until_ready(exchange: Exchange, model: HostedModel) -> None:
    """Wait for the model, as long as its `wait_for_ready` and the client allow; the call that follows may be refused.

    Raises:
        ClientLeft: nobody waits any more.
        Overloaded: too many do.
    """
    if not model.spec.limits.wait_for_ready:
        return
    began = time.monotonic()
    waiter = Waiter(asyncio.get_running_loop().create_future())
    exchange.watch(waiter)
    try:
        await model.wait_ready(waiter.future, exchange.patience())
    finally:
        exchange.unwatch()
    exchange.load = time.monotonic() - began
