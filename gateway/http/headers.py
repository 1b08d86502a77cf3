"""Headers that come from models: they may say much, but not break an answer, nor speak for the server or its origin."""

from __future__ import annotations

import re

OURS = frozenset(
    "content-length transfer-encoding connection keep-alive upgrade date server "
    "x-request-id request-id x-content-type-options server-timing "
    # What a browser keeps for the origin, which all models share, or lets other pages do.
    "clear-site-data strict-transport-security alt-svc public-key-pins expect-ct accept-ch nel report-to set-login "
    "service-worker-allowed access-control-allow-origin access-control-allow-credentials access-control-allow-headers "
    "access-control-allow-methods access-control-allow-private-network access-control-expose-headers "
    "access-control-max-age".split()
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}").fullmatch
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}").fullmatch


def checked(name: str, value: object) -> tuple[bytes, bytes] | None:
    """The header as bytes, its name in lower case; None when it has no place on the wire."""
    key, text = name.lower(), str(value)
    if not _NAME(key) or not _VALUE(text):
        return None
    return key.encode(), text.encode("latin-1")
