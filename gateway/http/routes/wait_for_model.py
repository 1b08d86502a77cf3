"""Let a request wait for a model that is not ready, until the client leaves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...admission.ready_queue import Waiter
from ...hosting.load_audit import tell_later
from ..exchange import Exchange
from .audit_actors import request_of

if TYPE_CHECKING:
    from ...hosting.model import HostedModel


async def until_ready(exchange: Exchange, model: HostedModel, body: bytes = b"") -> None:
    """Wait for the model, as long as its `wait_for_ready` and the client allow. The call may still be refused.

    A model that loads on demand starts to load, which is recorded in the audit log. `body` is held while waiting.

    Raises:
        ClientLeft: the client has disconnected.
        Overloaded: too many requests wait.
        Unavailable, Draining: it cannot be loaded now.
    """
    model.admission.note_call()
    patience = exchange.patience()
    _load(exchange, model)
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
    _load(exchange, model)  # it may have been unloaded meanwhile


def _load(exchange: Exchange, model: HostedModel) -> None:
    if model.load_on_demand():
        tell_later(request_of(exchange), [model])
