"""A request whose model is not ready yet: it may wait, and leaves when its client does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..early import Waiter
from ..told_loads import tell_later
from .actors import request_of
from .exchange import Exchange

if TYPE_CHECKING:
    from ..hosted import HostedModel


async def until_ready(exchange: Exchange, model: HostedModel, body: bytes = b"") -> None:
    """Wait for the model, as long as its `wait_for_ready` and the client allow; the call that follows may be refused.

    One that loads on demand begins to, which the audit log tells.

    `body` is held meanwhile.

    Raises:
        ClientLeft: nobody waits any more.
        Overloaded: too many do.
        Unavailable, Draining: it cannot be loaded now.
    """
    model.note_call()
    patience = exchange.patience()
    if model.load_on_demand():
        tell_later(request_of(exchange), [model])
    if not model.wait_for_ready:
        return
    began = time.monotonic()
    waiter = Waiter(body)
    exchange.watch(waiter)
    try:
        await model.wait_ready(waiter, patience)
    finally:
        exchange.unwatch()
        exchange.load = time.monotonic() - began
