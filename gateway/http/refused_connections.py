"""Connections refused or closed before they sent a request: answered, counted by reason, logged at a bounded rate.

They are not in the access log: they have no route and no key, and anyone can make thousands of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from .request_cycle import STATUS
from .request_heads import MAX_HEAD, MAX_HEADERS, MAX_URL

log = logging.getLogger("gateway.http")

EVERY = 10.0  # seconds between two log lines with the same reason
REASONS = {
    "too_many_connections": "the gateway has reached its connection limit",
    "not_operator": "processes started by the gateway may not operate it",
    "invalid_http": "what it sent is not valid HTTP",
    "url_too_long": "its URL is too long",
    "head_too_large": "its head is too large",
    "head_timeout": "its head did not arrive in time",
    "nothing_sent": "it sent nothing",
    "invalid_handshake": "what it sent is not a websocket handshake",
    "tls_handshake": "its TLS handshake failed",
}
_TEXTS = {
    400: ("invalid_request", "the request is not valid HTTP"),
    414: ("request_too_large", f"the URL is longer than {MAX_URL} bytes"),
    431: (
        "request_too_large",
        f"the head has more than {MAX_HEAD} bytes or {MAX_HEADERS} headers, or a line of a websocket's more than 8192",
    ),
    403: ("permission_denied", "processes started by the gateway, or confined like models, may not operate it"),
    503: ("model_unavailable", "the gateway has reached its connection limit"),
}
# status → a key of REASONS
REASON_OF = {400: "invalid_http", 414: "url_too_long", 431: "head_too_large"}
REASON_OF[503] = "too_many_connections"
QUIET = frozenset({"nothing_sent", "tls_handshake"})  # scanners, load balancers and browsers cause these all the time


class Refused:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = dict.fromkeys(REASONS, 0)
        self._clock = clock
        self._told: dict[str, tuple[float, int]] = {}  # when each reason was last logged, and its count then

    def note(self, reason: str, client: str | None, request_id: str = "") -> None:
        """Count one of `REASONS`. `request_id` is the id in its answer, if it got one."""
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


def refusal(status: int, request_id: bytes) -> bytes:
    """Return the whole answer to a request that never reached the application."""
    code, text = _TEXTS[status]
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = f'{{"error":{{"message":"{text}","type":"{kind}","param":null,"code":"{code}"}}}}'.encode()
    return b"%bcontent-type: application/json\r\n%bx-request-id: %b\r\nrequest-id: %b\r\n%b%b" % (
        STATUS[status],
        b"retry-after: 1\r\n" if status == 503 else b"",
        request_id,
        request_id,
        b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body),
        body,
    )
