"""Headers from models: they must not break an answer, or speak for the server or its origin."""

from __future__ import annotations

import re

_OURS = frozenset(
    "content-length transfer-encoding connection keep-alive upgrade date server "
    "x-request-id request-id x-content-type-options server-timing "
    # Headers that browsers store or apply for the whole origin, which all models share.
    "clear-site-data strict-transport-security alt-svc alternate-protocol public-key-pins public-key-pins-report-only "
    "expect-ct accept-ch accept-ch-lifetime critical-ch nel report-to origin-agent-cluster origin-trial "
    "critical-origin-trial set-login idp-signin-status activate-storage-access service-worker-allowed "
    "use-as-dictionary cache-groups cache-group-invalidation observe-browsing-topics shared-storage-write "
    # Headers that ask the user for a password in the gateway's name, or continue such a login.
    "www-authenticate optional-www-authenticate authentication-info authentication-control "
    # Headers that make a proxy answer with another file or address.
    "x-accel-redirect x-reproxy-url x-reproxy-file".split()
)
# CORS, which would admit other pages; auctions and attribution, which are stored for the origin; authentication of
# proxies; device-bound sessions; names reserved for browsers; and files with which proxies answer: their names have
# suffixes such as 2, -temporary and -location.
_FAMILIES = (
    "access-control-",
    "ad-auction-",
    "attribution-reporting-",
    "proxy-",
    "sec-",
    "secure-session-",
    "x-sendfile",
    "x-litespeed-",
    "x-lighttpd-send-",
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}").fullmatch
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}").fullmatch


def is_ours(name: str) -> bool:
    """Whether only the gateway may set this header: it frames the answer, or has effects beyond it."""
    name = name.lower()
    return name in _OURS or name.startswith(_FAMILIES)


def checked(name: str, value: object) -> tuple[bytes, bytes] | None:
    """Return the header as bytes with a lower-case name, or None if it is not valid in HTTP."""
    key, text = name.lower(), str(value)
    if not _NAME(key) or not _VALUE(text):
        return None
    return key.encode(), text.encode("latin-1")
