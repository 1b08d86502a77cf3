"""The outer guard: which requests may use this gateway. It runs on every route, before a body is read.

1. There is one Host header, and each header of which the gateway uses one value at most once. On loopback the Host is
   a loopback name or a configured one, against DNS rebinding.
2. A foreign Origin is refused, also one that differs only in its scheme, and so is what foreign pages load without an
   Origin header, or ahead. An origin in `allowed_origins` may read every answer, including errors and streams.
3. Except for the open paths, a key is needed; a plugin or the built-in keys check it. A browser's preflight request
   needs no key and reveals only which origins are allowed.
4. Once the route is known: the scope of its row in `route_table.py`.
"""

from __future__ import annotations

import datetime
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ..access.callers import NOBODY, Caller
from ..access.permits import Guests
from ..errors import BadRequest, Forbidden, Misdirected, PermissionDenied, Unauthorized
from ..settings.bind import is_address, is_loopback
from ..telemetry.redaction import cut
from . import credentials
from .route_table import OPEN, PROBES

if TYPE_CHECKING:
    from ..access.permits import KeyRing, Permits
    from ..hosting.hub import Hub
    from .exchange import Exchange

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}").fullmatch
CLOSE = {"connection": "close"}  # for heads that two parsers may read differently
# An IPv6 address in brackets, or a name, with an optional port.
_HOST = re.compile(r"(?:\[([0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%[\w.~%-]+)?)\]|([^:\[\]]*))(?::[0-9]*)?")
# Headers of which the gateway, or a plugin that authorizes, uses one value. Lists and what only models read may repeat.
ONCE = (credentials.HEADERS - {b"cookie"}) | {
    b"host",
    b"origin",
    b"content-type",
    b"content-encoding",
    b"inference-header-content-length",
    b"access-control-request-method",
    b"sec-fetch-site",
    b"sec-fetch-mode",
    b"sec-fetch-dest",
    b"sec-purpose",
    b"purpose",
    b"x-purpose",
    b"x-moz",
    b"x-request-id",
    b"x-baseten-request-id",
    b"x-request-timeout",
    b"user-agent",
}
_PORTS = {"http": ":80", "https": ":443"}  # which a browser leaves out, and some clients write
_KNOWN_HOSTS = 1024  # Host values cached as allowed
_MAX_HOST = 320  # bytes; a name has at most 253, plus a port
_EXPOSED = (
    b"x-request-id, request-id, retry-after, x-should-retry, x-gateway-usage, x-gateway-left-out, server-timing, "
    + b", ".join(
        b"x-ratelimit-%b-%b" % (what, of)
        for what in (b"limit", b"remaining", b"reset")
        for of in (b"requests", b"tokens")
    )
)
_METHODS = b"GET, POST, DELETE, OPTIONS"
_PREFLIGHT_FOR = b"600"  # seconds that a browser may cache it


class Guard:
    def __init__(self, hub: Hub, keys: KeyRing) -> None:
        gateway, plugins = hub.settings.gateway, hub.plugins
        self._hub, self._keys, self._guests = hub, keys, Guests()
        self._plugins = plugins if plugins.has("authorize") else None
        self._admin_http = gateway.admin_http
        self._own_key = (gateway.api_key or "").encode()
        self._on_loopback = is_loopback(gateway.host)
        self._address = gateway.host.strip("[]").lower()  # an address of this machine, so DNS rebinding cannot use it
        self._hosts = {host.lower() for host in gateway.allowed_hosts}
        self._origins = {origin.lower().rstrip("/") for origin in gateway.allowed_origins}
        self._good_hosts: set[bytes] = set()

    def check(self, exchange: Exchange) -> None:
        """Let the request pass and set its id.

        Raises:
            BadRequest, Misdirected, Forbidden, Unauthorized: it is refused.
        """
        headers = exchange.headers
        given = headers.get(b"x-request-id") or headers.get(b"x-baseten-request-id")
        exchange.own_key = self._own_key
        if given is not None and _REQUEST_ID(given) and not self._is_key(given, headers):
            exchange.request_id = given.decode()
        else:
            exchange.request_id = f"{random.getrandbits(128):032x}"
        if b"transfer-encoding" in headers:
            _check_encoding(exchange)
        if exchange.connection is not None and exchange.connection.is_local:
            exchange.is_admin = True  # only the gateway's own user can open that socket
            return
        pairs = exchange.scope["headers"]
        if len(headers) != len(pairs):
            _check_once(pairs)
        host = headers.get(b"host")
        if host not in self._good_hosts:
            self._check_host(host, exchange)
        origin = headers.get(b"origin")
        if origin is not None:
            self._check_origin(exchange, origin, host or b"")
        elif (site := headers.get(b"sec-fetch-site")) is not None:
            self._check_site(exchange, site)
        if self._hub.draining and exchange.cycle is not None:
            exchange.cycle.keep_alive = False
        if self._keys.is_required or self._plugins is not None:
            self._check_key(exchange)

    def _is_key(self, request_id: bytes, headers: dict[bytes, bytes]) -> bool:
        """Whether an id contains a key, which the model and its log would see."""
        needs_key = self._keys.is_required or self._plugins is not None
        given = bearer(headers) if needs_key else None
        keys = [key for key in (given, self._own_key) if key]
        return credentials.holds_key(request_id, keys, credentials.Budget())

    def _check_host(self, host: bytes | None, exchange: Exchange) -> None:
        if host is None and exchange.scope.get("http_version", "1.1") == "1.0":
            return  # HTTP/1.0 allows that, and health checks of load balancers use it; no browser is that old
        if not host:
            raise BadRequest("the request has no Host header", headers=CLOSE)
        if len(host) > _MAX_HOST:
            raise BadRequest(f"the Host header is longer than {_MAX_HOST} bytes", headers=CLOSE)
        found = _HOST.fullmatch(host.decode("latin-1"))
        if found is None:
            raise BadRequest("the Host header is not a valid host and port", headers=CLOSE)
        name = (found[1] or found[2] or "").lower()
        if self._on_loopback:
            allowed = is_loopback(name) or name in self._hosts
        else:
            allowed = not self._hosts or name in self._hosts or name == self._address
        if not allowed and (self._is_probe(exchange, name) or self._is_from_here(exchange, name)):
            return
        if not allowed:
            raise Misdirected(f"this gateway does not answer for host '{cut(name, 128)}'; add it to allowed_hosts")
        if len(self._good_hosts) < _KNOWN_HOSTS:
            self._good_hosts.add(host)

    def _is_probe(self, exchange: Exchange, name: str) -> bool:
        """Whether it is a probe of a load balancer, a kubelet or Prometheus, which use the address as Host.

        On loopback, a foreign name may belong to a page that uses DNS rebinding; an address cannot.
        """
        return exchange.path in PROBES and (not self._on_loopback or is_address(name))

    def _is_from_here(self, exchange: Exchange, name: str) -> bool:
        """Whether a client on this machine uses a loopback name, as our commands do. Those names point only here."""
        client = exchange.scope.get("client")
        return client is not None and is_loopback(client[0]) and is_loopback(name)

    def _check_origin(self, exchange: Exchange, origin: bytes, host: bytes) -> None:
        text = origin.decode("latin-1").lower().rstrip("/")
        if text in self._origins or "*" in self._origins:
            exchange.also = (
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"origin"),
            )
        elif not _is_own(exchange, text, host.decode("latin-1").lower()) and not is_preflight(exchange):
            raise Forbidden(f"origin '{cut(text, 128)}' may not use this gateway; add it to allowed_origins")

    def _check_site(self, exchange: Exchange, site: bytes) -> None:
        """Check requests without an Origin, as for images, scripts and frames: browsers send Sec-Fetch-Site instead."""
        if site.lower() in (b"same-origin", b"none") or "*" in self._origins:
            return
        headers = exchange.headers
        how = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
        is_link = how == (b"navigate", b"document") and exchange.method in ("GET", "HEAD")
        if not is_link or _is_prefetch(headers):
            raise Forbidden(
                "a page of another origin may not load this; it may fetch it if its origin is in allowed_origins"
            )

    def _check_key(self, exchange: Exchange) -> None:
        exchange.caller = NOBODY
        if is_preflight(exchange):
            return
        given, now = bearer(exchange.headers), datetime.datetime.now(datetime.UTC)
        if is_open(exchange):
            known = None if given is None else self._keys.find(given, now)
            exchange.caller = NOBODY if known is None else known.caller
            return
        if self._plugins is not None:
            guest = self._plugins.authorize(exchange.scope)
            if guest is not None:
                if guest.has_expired(now):
                    exchange.caller = guest
                    raise Unauthorized("Incorrect API key provided: it has expired.", cause="key_expired")
                exchange.credential = b""
                self._let_in(exchange, guest, self._guests.permits(guest, exchange.started))
                return
            if not self._keys.is_required:
                exchange.caller = None
                return
        if given is None:
            raise Unauthorized(
                "Incorrect API key provided: none. Send it as 'Authorization: Bearer KEY' or as 'x-api-key'.",
                cause="key_missing",
            )
        _check_one_key(exchange.headers, given)
        permits = self._keys.find(given, now)
        if permits is None:
            key, cause = self._keys.refused(given)
            if key is not None:  # identifies the caller for the log and the metrics, without any rights
                exchange.caller = replace(key, scopes=NOBODY.scopes, models=NOBODY.models)
            raise Unauthorized("Incorrect API key provided.", cause=cause)
        exchange.credential = given
        self._let_in(exchange, permits.caller, permits)

    def _let_in(self, exchange: Exchange, caller: Caller, permits: Permits) -> None:
        """Set the caller, from a key or a plugin. `check_scope` decides later what the caller may do."""
        exchange.caller, exchange.permits = caller, permits
        exchange.is_admin = self._admin_http and caller.may("admin")


def _check_once(pairs: list[tuple[bytes, bytes]]) -> None:
    """Refuse headers of which two readers may take different ones."""
    seen: set[bytes] = set()
    for name, _ in pairs:
        if name in seen and name in ONCE:
            raise BadRequest(f"the request has more than one {name.decode()} header", headers=CLOSE)
        seen.add(name)


def _is_own(exchange: Exchange, origin: str, host: str) -> bool:
    """Whether an origin is the gateway's: its scheme, host and port (RFC 6454, 5).

    Behind a proxy that ends TLS, its scheme is https though we see plain HTTP. A server with TLS beside this gateway
    may have such an origin too, so the browser must say that it is the same.
    """
    scheme, _, place = origin.partition("://")
    site = exchange.headers.get(b"sec-fetch-site", b"").lower()
    if scheme not in _PORTS or place.removesuffix(_PORTS[scheme]) != host.removesuffix(_PORTS[scheme]):
        return False
    if (scheme == "https") == (exchange.scope.get("scheme", "http") in ("https", "wss")):
        return site in (b"", b"same-origin", b"none")
    return scheme == "https" and site == b"same-origin"


def _is_prefetch(headers: dict[bytes, bytes]) -> bool:
    """Whether a page has a link followed that its user may never follow, such as by speculation rules."""
    return any(
        b"pre" in headers.get(name, b"").lower() for name in (b"sec-purpose", b"purpose", b"x-moz", b"x-purpose")
    )


def _check_encoding(exchange: Exchange) -> None:
    """Refuse what two readers may take for bodies of different lengths (RFC 9112, 6.1)."""
    given = [value for name, value in exchange.scope["headers"] if name == b"transfer-encoding"]
    if len(given) > 1 or given[0].lower() != b"chunked":
        raise BadRequest("the only transfer-encoding that is understood is chunked, once", headers=CLOSE)
    if exchange.scope.get("http_version") == "1.0":
        raise BadRequest("HTTP/1.0 has no transfer-encoding; send a content-length", headers=CLOSE)


def check_scope(exchange: Exchange) -> None:
    """Check that the caller has the scope of the route.

    Raises:
        PermissionDenied: it does not.
    """
    scope = exchange.needs
    if exchange.caller is not None and not exchange.caller.may(scope):
        raise PermissionDenied(f"this key lacks the scope '{scope}', which {cut(exchange.path, 128)} needs")
    exchange.is_order = scope == "admin"


def is_open(exchange: Exchange) -> bool:
    """Whether the path needs no key: health checks, and pages that reveal nothing about this gateway."""
    return exchange.path in OPEN and exchange.method in ("GET", "HEAD")


def wants_html(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser asks for a page."""
    return b"text/html" in headers.get(b"accept", b"")


def is_preflight(exchange: Exchange) -> bool:
    """Whether it is a CORS preflight request of a browser."""
    headers = exchange.headers
    return exchange.method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers


async def preflight(exchange: Exchange) -> None:
    """Answer a preflight request. Origins that are not allowed get no CORS headers, which refuses them."""
    headers: list[tuple[bytes, bytes]] = []
    if exchange.also:
        asked = exchange.headers.get(b"access-control-request-headers")
        headers = [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", _PREFLIGHT_FOR),
            *([(b"access-control-allow-headers", asked)] if asked else []),
        ]
    await exchange.start(204, headers)
    await exchange.write(b"", last=True)


def _check_one_key(headers: dict[bytes, bytes], given: bytes) -> None:
    """Refuse different keys in the two headers that `bearer` reads."""
    if (other := headers.get(b"x-api-key")) and other != given:
        raise BadRequest("the Authorization and the x-api-key header have different keys", headers=CLOSE)


def bearer(headers: dict[bytes, bytes]) -> bytes | None:
    """Return the key of a request, from either header."""
    authorization = headers.get(b"authorization")
    if authorization is not None and authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip()
    return headers.get(b"x-api-key")
