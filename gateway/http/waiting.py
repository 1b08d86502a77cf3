"""A request whose model is not ready yet: it may wait, and leaves when its client does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..early import Waiter
from .exchange import Exchange

if TYPE_CHECKING:
    from ..hosted import HostedModel


async def until_ready(exchange: Exchange, model: HostedModel, body: bytes = b"") -> None:
    """Wait for the model, as long as its `wait_for_ready` and the client allow; the call that follows may be refused.

    `body` is held meanwhile.

    Raises:
        ClientLeft: nobody waits any more.
        Overloaded: too many do.
        Unavailable, Draining: it cannot be loaded now.
    """
    if not model.wait_for_ready:
        return
    began = time.monotonic()
    waiter = Waiter(body)
    exchange.watch(waiter)
    try:
        await model.wait_ready(waiter, exchange.patience())
    finally:
        exchange.unwatch()
        exchange.load = time.monotonic() - began
