"""Connections that were refused or closed before there was a request: counted by reason, told at a bounded rate.

They are in no access log: there is no route and no key to tell, and anybody may make them by the thousand.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger("gateway.http")

EVERY = 10.0  # seconds between two lines of one reason
REASONS = {
    "too_many_connections": "the gateway has as many connections as it may hold",
    "not_operator": "what the gateway has started does not operate it",
    "invalid_http": "what it sent is not valid HTTP",
    "url_too_long": "its URL is too long",
    "head_too_large": "its head is too large",
    "head_timeout": "its head did not come in time",
    "nothing_sent": "it sent nothing",
    "invalid_handshake": "what it sent is no handshake of a websocket",
    "tls_handshake": "its TLS handshake failed",
}
QUIET = frozenset({"nothing_sent", "tls_handshake"})  # scanners, balancers and browsers make them all day


class Refused:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = dict.fromkeys(REASONS, 0)
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}  # when a reason was last told, and its count then

    def note(self, reason: str, client: str | None, request_id: str = "") -> None:
        """Count one of `REASONS`; `request_id` is the one in its answer, where it got one."""
        self.counts[reason] += 1
        if reason in QUIET:
            return
        now, count = self._clock(), self.counts[reason]
        told_at, told = self._told.get(reason, (now - EVERY, 0))
        if now - told_at < EVERY:
            return
        self._told[reason] = now, count
        answered = f", answered as request {request_id}" if request_id else ""
        more = f"; {count - told - 1} more like it since the last such line" if count - told > 1 else ""
        log.warning(
            "refused a connection of %s: %s%s%s",
            client or "an unknown address",
            REASONS[reason],
            answered,
            more,
            extra={"reason": reason, "client": client, "refused": count - told, "request_id": request_id or None},
        )
