"""One line for each request that has ended: who asked what, how it went, how long it took.

Everything in it is of a fixed shape or quoted, so that no client writes a line, or a field, of its own. Contents and
queries are never in it: they are the clients' own.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import TYPE_CHECKING, Any

from ..keys import Key
from .exchange import CLIENT_LEFT, Exchange
from .guards import PROBES, bearer
from .stall import SEND_TIMEOUT

if TYPE_CHECKING:
    from ..settings import GatewaySettings

log = logging.getLogger("gateway.requests")
MAX_PATH, MAX_WORD = 512, 128  # characters of what clients or models make up; the whole line has its end then
_PLAIN = re.compile(r"[A-Za-z0-9_./:@{}+*~-]+").fullmatch


class AccessLog:
    """Writes at `level`: an access log that was asked for is written whatever level the rest of the log has.

    What operators look at over the admin socket is told at the level of debugging.
    """

    def __init__(self, level: int, *, debug: bool = False) -> None:
        self._level = level
        log.setLevel(logging.DEBUG if debug else level)

    def note(self, exchange: Exchange) -> None:
        """Tell of the request, once its tokens are known."""
        if exchange.status < 400:
            if exchange.path in PROBES:
                return
            if exchange.is_local and exchange.method == "GET":  # `gateway ps` and the like look all day
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
    """The one that the settings ask for; `log_level = "debug"` shows its lines too."""
    debug = settings.log_level == "debug"
    if settings.access_log:
        return AccessLog(logging.INFO, debug=debug)
    return AccessLog(logging.DEBUG) if debug else None


def fields_of(exchange: Exchange, seconds: float) -> dict[str, Any]:
    """What is told of a request; times are seconds. `path` is last: it is as long as a client likes."""
    caller, client = exchange.caller, exchange.scope.get("client")
    prompt, completion, is_estimated = exchange.tokens or (None, None, None)
    return {
        "request_id": exchange.request_id,
        "key": (caller.name[:MAX_WORD] or None) if caller is not None else None,
        "key_id": caller.id if isinstance(caller, Key) else None,
        "client": "admin-socket" if exchange.is_local else client[0] if client else None,
        "model": exchange.model or None,
        "route": exchange.route or None,
        "status": exchange.status,
        "error": exchange.error[:MAX_WORD] or None,
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
        "method": exchange.method[:MAX_WORD],
        "path": exchange.path[:MAX_PATH],
    }


def _asked(exchange: Exchange) -> str | None:
    """The model that was asked for and is not there for the caller; what may be a key that got there is not told."""
    asked = exchange.asked
    if asked.startswith("gw_") or asked.encode() == bearer(exchange.headers):
        return "***"
    return asked[:MAX_WORD] or None


def _word(value: Any) -> str:
    if value is None:
        return "-"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _PLAIN(text) else json.dumps(text)
