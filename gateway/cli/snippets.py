"""Example calls to paste when the gateway is up: curl and the OpenAI SDK, for a model that is ready."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..examples.calls import calls
from ..settings.bind import is_loopback

if TYPE_CHECKING:
    from ..access.permits import KeyRing
    from ..hosting.hub import Hub


def snippets(hub: Hub, keys: KeyRing, url: str) -> str | None:
    """Return example calls for the most useful kind of model; None if no model is ready."""
    gateway, models = hub.settings.gateway, hub.catalog.models.values()
    shown = partial(calls, hub.catalog, hub.plugins.dialects(), models, has_key=keys.is_required)
    if gateway.tls_cert is None:
        return next(shown(url), None)
    from ..http.tls import names_of

    parts = urlsplit(url)
    host, remark = certified(parts.hostname or "", names_of(gateway.tls_cert, gateway.tls_key))
    if host != parts.hostname:
        url = parts._replace(netloc=f"{host}:{parts.port}").geturl()
    lines = next(shown(url, cert=gateway.tls_cert.absolute()), None)
    return None if lines is None else remark + lines


def certified(host: str, names: Sequence[str]) -> tuple[str, str]:
    """Return a host name that the certificate covers, and a comment if that name may not lead to this machine."""
    if not names or host in names:
        return host, ""
    if "localhost" in names and is_loopback(host):
        return "localhost", ""
    name = next((each for each in names if each != "localhost"), names[0]).replace("*", "www")
    return name, f"# {name}, the name in the certificate, must resolve to this machine and be listed in allowed_hosts\n"
