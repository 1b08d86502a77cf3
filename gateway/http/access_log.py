"""One line for each finished request: the caller, the route, the result and the time it took.

Every field has a fixed form or is quoted, so that a client cannot forge a line or a field. Contents and query strings
are never logged: they belong to the clients.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any

from ..access.keys import Key
from ..telemetry.redaction import MARK, cut
from .credentials import holds_encoded_key
from .exchange import CLIENT_LEFT, Exchange
from .guards import bearer
from .route_table import PROBES
from .slow_clients import SEND_TIMEOUT

if TYPE_CHECKING:
    from ..settings.schema import GatewaySettings

log = logging.getLogger("gateway.requests")
MAX_PATH, MAX_WORD = 512, 128  # maximum characters of values that clients or models choose, which bounds the line
_PLAIN = re.compile(r"[A-Za-z0-9_./:@{}+*~-]+").fullmatch


class AccessLog:
    """Writes lines at `level`, independent of the level of the rest of the log.

    GET requests over the admin socket are written at level debug.
    """

    def __init__(self, level: int, *, debug: bool = False) -> None:
        self._level = level
        log.setLevel(logging.DEBUG if debug else level)

    def note(self, exchange: Exchange) -> None:
        """Log the request once its tokens are known."""
        if exchange.status < 400:
            if exchange.path in PROBES:
                return
            if exchange.is_local and exchange.method == "GET":  # `gateway ps` and similar commands poll
                self._tell(exchange, logging.DEBUG)
                return
        self._tell(exchange, self._level)

    def _tell(self, exchange: Exchange, level: int) -> None:
        seconds = time.monotonic() - exchange.started
        if exchange.counting is None:
            self._write(exchange, seconds, level)
        else:
            exchange.counting.add_done_callback(lambda _: self._write(exchange, seconds, level))

    def _write(self, exchange: Exchange, seconds: float, level: int) -> None:
        if not log.isEnabledFor(level):
            return
        found = fields_of(exchange, seconds)
        line = " ".join(f"{name}={_word(value)}" for name, value in found.items())
        message = f"{found['method']} {found['path']} {found['status']}"
        log.log(level, "%s", message, extra={**found, "line": f"request {line}"})


def access_log(settings: GatewaySettings) -> AccessLog | None:
    """Return the access log that the settings ask for. With `log_level = "debug"` there is one in any case."""
    debug = settings.log_level == "debug"
    if settings.access_log:
        return AccessLog(logging.INFO, debug=debug)
    return AccessLog(logging.DEBUG) if debug else None


def fields_of(exchange: Exchange, seconds: float) -> dict[str, Any]:
    """Return the fields of a line. Times are in seconds. `path` comes last because its length is up to the client."""
    caller, client = exchange.caller, exchange.scope.get("client")
    prompt, completion, is_estimated = exchange.tokens or (None, None, None)
    return {
        "request_id": exchange.request_id,
        "key": (cut(caller.name, MAX_WORD) or None) if caller is not None else None,
        "key_id": caller.id if isinstance(caller, Key) else None,
        "client": "admin-socket" if exchange.is_local else client[0] if client else None,
        "model": exchange.counted_for or None,
        "route": exchange.route or None,
        "status": exchange.status,
        "error": cut(exchange.error, MAX_WORD) or None,
        "cause": exchange.cause or None,
        "asked": _asked(exchange),
        "duration": round(seconds, 6),
        "queue": round(exchange.queued, 6),
        "load": round(exchange.load, 6),
        "run": round(exchange.ran, 6),
        "count": round(exchange.count, 6),
        "body": round(exchange.reading, 6),
        "send": round(exchange.sending, 6),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "tokens_estimated": is_estimated,
        "client_gone": exchange.error != SEND_TIMEOUT and (exchange.status == CLIENT_LEFT or exchange.client_is_gone),
        "method": cut(exchange.method, MAX_WORD),
        "path": _path(exchange),
    }


def _path(exchange: Exchange) -> str:
    """Return the path. The log hides keys as they are, but one that was encoded twice is still encoded here."""
    path = exchange.path
    if "%" in path:
        keys = [key for key in (exchange.credential, exchange.own_key) if key]
        if holds_encoded_key(path.encode(errors="replace"), keys):
            return MARK
    return cut(path, MAX_PATH)


def _asked(exchange: Exchange) -> str | None:
    """Return the requested model that does not exist for the caller. A value that may be an API key is masked."""
    asked = exchange.asked
    if asked.startswith("gw_") or asked.encode() == bearer(exchange.headers):
        return MARK
    return cut(asked, MAX_WORD) or None


def _word(value: Any) -> str:
    if value is None:
        return "-"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _PLAIN(text) else json.dumps(text)
