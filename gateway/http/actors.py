"""Who gave an order, in words for the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..audit import user
from ..keys import Key
from ..peers import credentials_of

if TYPE_CHECKING:
    from .exchange import Exchange


def actor_of(exchange: Exchange) -> str:
    """The user behind the admin socket, the key, or where a caller without one is."""
    if exchange.is_local:
        sock = exchange.connection.transport.get_extra_info("socket") if exchange.connection is not None else None
        found = None if sock is None else credentials_of(sock.fileno())
        return "the admin socket" if found is None else f"{user(found[1])} (process {found[0]}) over the admin socket"
    caller, client = exchange.caller, exchange.scope.get("client")
    where = client[0] if client else "an unknown address"
    if isinstance(caller, Key):
        return f"key '{caller.name}' ({caller.id}) at {where}"
    return f"'{caller.name}' at {where}" if caller is not None and caller.name else f"somebody without a key at {where}"
