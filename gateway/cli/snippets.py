"""Lines to paste once the gateway is up: curl, and the OpenAI SDK, for a model that is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..examples import calls

if TYPE_CHECKING:
    from ..hub import Hub


def snippets(hub: Hub, url: str) -> str | None:
    """Return the lines of the most telling kind of model, None when no model is ready."""
    cert = hub.settings.gateway.tls_cert
    return next(calls(hub, hub.models.values(), url, None if cert is None else cert.absolute()), None)
