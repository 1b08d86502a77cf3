"""Lines to paste once the gateway is up: curl, and the OpenAI SDK, for a model that is ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..examples import calls
from ..settings import is_loopback

if TYPE_CHECKING:
    from ..hub import Hub


def snippets(hub: Hub, url: str) -> str | None:
    """Return the lines of the most telling kind of model, None when no model is ready."""
    gateway = hub.settings.gateway
    if gateway.tls_cert is None:
        return next(calls(hub, hub.models.values(), url), None)
    from ..http.tls import names_of

    parts = urlsplit(url)
    host, remark = certified(parts.hostname or "", names_of(gateway.tls_cert, gateway.tls_key))
    if host != parts.hostname:
        url = parts._replace(netloc=f"{host}:{parts.port}").geturl()
    lines = next(calls(hub, hub.models.values(), url, gateway.tls_cert.absolute()), None)
    return None if lines is None else remark + lines


def certified(host: str, names: Sequence[str]) -> tuple[str, str]:
    """The host to ask, under a name that the certificate is for, and a line about one that need not lead here."""
    if not names or host in names:
        return host, ""
    if "localhost" in names and is_loopback(host):
        return "localhost", ""
    name = next((each for each in names if each != "localhost"), names[0]).replace("*", "www")
    return name, f"# {name}, which the certificate is for, must lead to this gateway, and stand in allowed_hosts\n"
