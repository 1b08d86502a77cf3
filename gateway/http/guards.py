"""The outer guard: who may talk to this gateway at all. Runs before any body is read, on every route.

1. one Host, and on loopback a loopback name or a configured one (DNS rebinding)  2. a foreign Origin is refused, and
what its pages load without saying it; one that `allowed_origins` lists may read every answer, errors and streams too
3. without one of the open paths: a key, by plugin or built in. A browser's preflight needs no key and says nothing but
which origins are allowed.
"""

from __future__ import annotations

import datetime
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ..callers import NOBODY, Caller, Scope
from ..errors import BadRequest, Forbidden, Misdirected, PermissionDenied, Unauthorized
from ..settings import is_address, is_loopback
from .pages import SHELL

if TYPE_CHECKING:
    from ..access import Permits
    from ..hub import Hub
    from .exchange import Exchange

HEALTH = frozenset({"/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready", "/ping"})
OPEN = HEALTH | SHELL | {"/docs/"}
PROBES = HEALTH | {"/metrics"}  # what asks these knows addresses, and sends one as its Host
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}").fullmatch
FREE, FREE_ENDINGS = frozenset({"/version", "/v2"}), ("/loaded", "/schema", "/ping")  # one look at one thing
ADMIN, ADMIN_ENDINGS = "/admin/", ("/hot-reload", "/load", "/unload", "/logs")
CLOSE = {"connection": "close"}  # after a head that two readers may read differently
_SLASHES = re.compile("/+")
_KNOWN_HOSTS = 1024  # Host values remembered as good
_MAX_HOST = 320  # bytes of one; a name has 253, and there may be a port
_EXPOSED = (
    b"x-request-id, request-id, retry-after, x-should-retry, x-gateway-usage, x-gateway-left-out, server-timing, "
    + b", ".join(
        b"x-ratelimit-%b-%b" % (what, of)
        for what in (b"limit", b"remaining", b"reset")
        for of in (b"requests", b"tokens")
    )
)
_METHODS = b"GET, POST, DELETE, OPTIONS"
_PREFLIGHT_FOR = b"600"  # seconds that a browser may remember it


class Guard:
    def __init__(self, hub: Hub) -> None:
        gateway, plugins = hub.settings.gateway, hub.plugins
        self._hub = hub
        self._plugins = plugins if plugins.has_authorize else None
        self._keys, self._guests, self._admin_http = hub.keys, hub.guests, gateway.admin_http
        self._on_loopback = is_loopback(gateway.host)
        self._address = gateway.host.strip("[]").lower()  # of this machine, so that no page leads it here
        self._hosts = {host.lower() for host in gateway.allowed_hosts}
        self._origins = {origin.lower().rstrip("/") for origin in gateway.allowed_origins}
        self._good_hosts: set[bytes] = set()

    def check(self, exchange: Exchange) -> None:
        """Let the request pass, with its id set.

        Raises:
            BadRequest, Misdirected, Forbidden, Unauthorized: it may not.
        """
        headers = exchange.headers
        given = headers.get(b"x-request-id") or headers.get(b"x-baseten-request-id")
        if given is not None and _REQUEST_ID(given):
            exchange.request_id = given.decode()
        else:
            exchange.request_id = f"{random.getrandbits(128):032x}"
        if exchange.connection is not None and exchange.connection.is_local:
            exchange.is_admin = True  # only our own user can open that socket
            return
        pairs = exchange.scope["headers"]
        if len(headers) != len(pairs) and sum(name == b"host" for name, _ in pairs) > 1:
            raise BadRequest("the request has more than one Host header", headers=CLOSE)
        encoding = headers.get(b"transfer-encoding")
        if encoding is not None and encoding.lower() != b"chunked":
            raise BadRequest("the only transfer-encoding that is understood is chunked", headers=CLOSE)
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

    def _check_host(self, host: bytes | None, exchange: Exchange) -> None:
        if host is None and exchange.scope.get("http_version", "1.1") == "1.0":
            return  # it may leave it out, as load balancers' checks do; no browser is so old
        if not host:
            raise BadRequest("the request has no Host header", headers=CLOSE)
        if len(host) > _MAX_HOST:
            raise BadRequest(f"the Host header is longer than {_MAX_HOST} bytes", headers=CLOSE)
        name = _without_port(host.decode("latin-1")).lower()
        if self._on_loopback:
            allowed = is_loopback(name) or name in self._hosts
        else:
            allowed = not self._hosts or name in self._hosts or name == self._address
        if not allowed and (self._is_probe(exchange, name) or self._is_from_here(exchange, name)):
            return
        if not allowed:
            raise Misdirected(f"this gateway does not answer for host '{name[:128]}'; add it to allowed_hosts")
        if len(self._good_hosts) < _KNOWN_HOSTS:
            self._good_hosts.add(host)

    def _is_probe(self, exchange: Exchange, name: str) -> bool:
        """Whether it is a question of a balancer, a kubelet or Prometheus, which ask by address.

        On loopback another name than its own may be that of a page that reads along; no address is a name.
        """
        return exchange.path in PROBES and (not self._on_loopback or is_address(name))

    def _is_from_here(self, exchange: Exchange, name: str) -> bool:
        """Whether this machine asks its own gateway, as our commands do: names of loopback lead nowhere else."""
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
        elif text.partition("://")[2] != host.decode("latin-1").lower() and not is_preflight(exchange):
            raise Forbidden(f"origin '{text[:128]}' may not use this gateway; add it to allowed_origins")

    def _check_site(self, exchange: Exchange, site: bytes) -> None:
        """Of what pages load without saying their origin, as images, scripts and frames, browsers say this much."""
        if site.lower() in (b"same-origin", b"none") or "*" in self._origins:
            return
        headers = exchange.headers
        how = headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
        if how != (b"navigate", b"document") or exchange.method not in ("GET", "HEAD"):  # a link, and no form
            raise Forbidden(
                "a page of another origin may not load this; it may fetch it, if allowed_origins has its origin"
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
                self._admit(exchange, guest, self._guests.permits(guest, exchange.started))
                return
            if not self._keys.is_required:
                exchange.caller = None
                return
        if given is None:
            raise Unauthorized(
                "Incorrect API key provided: none. Send it as 'Authorization: Bearer KEY' or as 'x-api-key'.",
                cause="key_missing",
            )
        permits = self._keys.find(given, now)
        if permits is None:
            key, cause = self._keys.refused(given)
            if key is not None:  # named for the log and the metrics, with no right of its own
                exchange.caller = replace(key, scopes=NOBODY.scopes, models=NOBODY.models)
            raise Unauthorized("Incorrect API key provided.", cause=cause)
        exchange.credential = given
        self._admit(exchange, permits.caller, permits)

    def _admit(self, exchange: Exchange, caller: Caller, permits: Permits) -> None:
        """Let in whoever it is as far as that one may go; the holder of a key and a plugin's caller alike."""
        scope = scope_of(exchange)
        exchange.caller = caller
        if not caller.may(scope):
            raise PermissionDenied(f"this key lacks the scope '{scope}', which {exchange.path[:128]} needs")
        exchange.permits, exchange.is_order = permits, scope == "admin"
        exchange.is_admin = self._admin_http and caller.may("admin")


def scope_of(exchange: Exchange) -> Scope:
    """What a key must be allowed to do for this path."""
    path = exchange.path
    if "/metrics" in path and _SLASHES.sub("/", f"{path}/") == "/metrics/":  # Litestar takes many slashes for one
        return "metrics"
    return "admin" if path.endswith(ADMIN_ENDINGS) or path.startswith(ADMIN) else "infer"


def costs(exchange: Exchange) -> bool:
    """Whether a request counts for the limits of its caller: all that make somebody work, and those of plugins."""
    if exchange.method == "POST":
        return True
    path = exchange.path
    if path in FREE:
        return False
    return not (path.startswith(("/v1/models/", "/models/")) and path.endswith(FREE_ENDINGS))


def is_open(exchange: Exchange) -> bool:
    """Whether it is one of the questions that need no key: health, and pages that say nothing of this gateway."""
    return exchange.path in OPEN and exchange.method in ("GET", "HEAD")


def wants_html(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser asks for a page to look at."""
    return b"text/html" in headers.get(b"accept", b"")


def is_preflight(exchange: Exchange) -> bool:
    """Whether a browser asks what it may send, before it sends it."""
    headers = exchange.headers
    return exchange.method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers


async def preflight(exchange: Exchange) -> None:
    """Answer such a question. Origins that are not allowed get no permission, which is their answer."""
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


def bearer(headers: dict[bytes, bytes]) -> bytes | None:
    """The key of a request, from either header."""
    authorization = headers.get(b"authorization")
    if authorization is not None and authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip()
    return headers.get(b"x-api-key")


_HOST = re.compile(r"(?:\[([0-9a-fA-F:.%]+)\]|([^:\[\]]*))(?::[0-9]*)?")


def _without_port(host: str) -> str:
    """The name in a Host header; one that is no host and port stands for itself, and is nobody's name."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2] or "") if found is not None else host
