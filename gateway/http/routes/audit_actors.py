"""Describe the actor of an order for the audit log."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...access.keys import Key
from ...system.socket_peers import credentials_of
from ...telemetry.audit import Actor, user
from ...telemetry.printable import quoted

if TYPE_CHECKING:
    from ..exchange import Exchange


def actor_of(exchange: Exchange) -> Actor:
    """Return the user at the admin socket, the key, or the address of a caller without a key."""
    request = exchange.request_id
    if exchange.is_local:
        sock = exchange.connection.transport.get_extra_info("socket") if exchange.connection is not None else None
        found = None if sock is None else credentials_of(sock.fileno())
        local = "the admin socket"
        words = local if found is None else f"{user(found[1])} (process {found[0]}) over {local}"
        return Actor(words, request_id=request)
    caller, client = exchange.caller, exchange.scope.get("client")
    where = client[0] if client else None
    place = where or "an unknown address"
    if isinstance(caller, Key):
        return Actor(f"key {quoted(caller.name)} ({caller.id}) at {place}", caller.name, caller.id, where, request)
    if caller is not None and caller.name:
        return Actor(f"{quoted(caller.name)} at {place}", caller.name, None, where, request)
    return Actor(f"a caller without a key at {place}", address=where, request_id=request)


def request_of(exchange: Exchange) -> Actor:
    """Return the actor of a request that changed something without being an order."""
    actor = actor_of(exchange)
    return replace(actor, words=f"a request of {actor}")
