"""The outer guard: who may talk to this gateway at all. Runs before any body is read, on every route.

1. one Host, and on loopback a loopback name or a configured one (DNS rebinding)  2. a foreign Origin is refused
3. without one of the open paths: a key, by plugin or built in
"""

from __future__ import annotations

import hashlib
import hmac
import random
import re
from typing import TYPE_CHECKING

from ..errors import BadRequest, Forbidden, Misdirected, Unauthorized
from ..settings import is_loopback

if TYPE_CHECKING:
    from ..plugins import Plugins
    from ..settings import Settings
    from .exchange import Exchange

OPEN = frozenset({"/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready", "/ping", "/"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}").fullmatch
_KNOWN_HOSTS = 1024  # Host values remembered as good


class Guard:
    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        gateway = settings.gateway
        self._plugins = plugins if plugins.has_authorize else None
        self._key = hashlib.sha256(gateway.api_key.encode()).digest() if gateway.api_key else None
        self._on_loopback = is_loopback(gateway.host)
        self._hosts = {host.lower() for host in gateway.allowed_hosts}
        self._origins = {origin.lower().rstrip("/") for origin in gateway.allowed_origins}
        self._good_hosts: set[bytes] = set()

    def check(self, exchange: Exchange) -> None:
        """Let the request pass, with its id set.

        Raises:
            BadRequest, Misdirected, Forbidden, Unauthorized: it may not.
        """
        headers = exchange.headers
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID(given):
            exchange.request_id = given.decode()
        else:
            exchange.request_id = f"{random.getrandbits(128):032x}"
        pairs = exchange.scope["headers"]
        if len(headers) != len(pairs) and sum(name == b"host" for name, _ in pairs) > 1:
            raise BadRequest("the request has more than one Host header")
        host = headers.get(b"host")
        if host not in self._good_hosts:
            self._check_host(host)
        origin = headers.get(b"origin")
        if origin is not None and exchange.method != "OPTIONS":
            self._check_origin(origin, host or b"")
        if self._key is not None or self._plugins is not None:
            self._check_key(exchange)

    def _check_host(self, host: bytes | None) -> None:
        if not host:
            raise BadRequest("the request has no Host header")
        name = _without_port(host.decode("latin-1")).lower()
        if self._on_loopback:
            allowed = is_loopback(name) or name in self._hosts
        else:
            allowed = not self._hosts or name in self._hosts
        if not allowed:
            raise Misdirected(f"this gateway does not answer for host '{name[:128]}'; add it to allowed_hosts")
        if len(self._good_hosts) < _KNOWN_HOSTS:
            self._good_hosts.add(host)

    def _check_origin(self, origin: bytes, host: bytes) -> None:
        text = origin.decode("latin-1").lower().rstrip("/")
        if text in self._origins or "*" in self._origins:
            return
        if text.partition("://")[2] == host.decode("latin-1").lower():
            return
        raise Forbidden(f"origin '{text[:128]}' may not use this gateway; add it to allowed_origins")

    def _check_key(self, exchange: Exchange) -> None:
        if exchange.path in OPEN and exchange.method in ("GET", "HEAD", "OPTIONS"):
            return
        if self._plugins is not None:
            exchange.caller = self._plugins.authorize(exchange.scope)
            if exchange.caller is not None or self._key is None:
                return
        given = bearer(exchange.headers)
        if given is None:
            raise Unauthorized(
                "Incorrect API key provided: none. Send it as 'Authorization: Bearer KEY' or as 'x-api-key'."
            )
        assert self._key is not None
        if not hmac.compare_digest(hashlib.sha256(given).digest(), self._key):
            raise Unauthorized("Incorrect API key provided.")
        exchange.caller = "key"


def bearer(headers: dict[bytes, bytes]) -> bytes | None:
    """The key of a request, from either header."""
    authorization = headers.get(b"authorization")
    if authorization is not None and authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip()
    return headers.get(b"x-api-key")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0][1:]
    return host.partition(":")[0] if host.count(":") == 1 else host
