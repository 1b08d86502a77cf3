"""Headers that come from models: they may say much, but not break an answer, nor speak for the server or its origin."""

from __future__ import annotations

import re

_OURS = frozenset(
    "content-length transfer-encoding connection keep-alive upgrade date server "
    "x-request-id request-id x-content-type-options server-timing "
    # What a browser keeps for the origin, which all models share, does for it elsewhere, or reports of the rest of it.
    "clear-site-data strict-transport-security alt-svc alternate-protocol public-key-pins public-key-pins-report-only "
    "expect-ct accept-ch accept-ch-lifetime critical-ch nel report-to origin-agent-cluster origin-trial "
    "critical-origin-trial set-login idp-signin-status activate-storage-access service-worker-allowed "
    "use-as-dictionary cache-groups cache-group-invalidation observe-browsing-topics shared-storage-write "
    # What asks whoever sits there for a password in the gateway's name, or goes on with one.
    "www-authenticate optional-www-authenticate authentication-info authentication-control "
    # What has a proxy answer with a file or an address of its own.
    "x-accel-redirect x-sendfile x-lighttpd-send-file x-reproxy-url x-reproxy-file".split()
)
# All of CORS, which lets other pages in; of auctions and attribution, which are kept for the origin; of passwords for
# proxies; of sessions that a browser binds to itself; and those that browsers keep for themselves.
_FAMILIES = ("access-control-", "ad-auction-", "attribution-reporting-", "proxy-", "sec-", "secure-session-")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}").fullmatch
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}").fullmatch


def is_ours(name: str) -> bool:
    """Whether a model has no say in it: it frames the answer, or holds for more than the answer."""
    name = name.lower()
    return name in _OURS or name.startswith(_FAMILIES)


def checked(name: str, value: object) -> tuple[bytes, bytes] | None:
    """The header as bytes, its name in lower case; None when it has no place on the wire."""
    key, text = name.lower(), str(value)
    if not _NAME(key) or not _VALUE(text):
        return None
    return key.encode(), text.encode("latin-1")
