"""Health checks for operators and probes. None of them calls a model, waits in a queue, or needs a key.

Model names are shown only to callers that may see them. If keys are needed, callers without a key see none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...access.callers import everybody
from ...errors import UnknownModel
from ...hosting.catalog import SOLE

if TYPE_CHECKING:
    from ...hosting.catalog import Sees
    from ...hosting.hub import Hub
    from ...hosting.model import HostedModel


async def ask_health(models: Iterable[HostedModel], seconds: float) -> None:
    """Check models that have an `is_healthy`, and wait at most `seconds`. Their `health` holds the answers so far."""
    asked = [asyncio.create_task(model.is_healthy()) for model in models if model.has_health]
    if asked:
        await asyncio.wait(asked, timeout=seconds)


class Health:
    def __init__(self, hub: Hub) -> None:
        self._hub, self._catalog = hub, hub.catalog

    def live(self) -> dict[str, Any]:
        """Return 200 while the event loop runs. It never depends on a model."""
        return {"status": "ok", "version": __version__}

    def ready(self, sees: Sees) -> tuple[int, dict[str, Any]]:
        """Return 200 if every required model is ready and the gateway is not draining."""
        states = {model.name: model.state for model in self._catalog.seen(sees)}
        ready = self._hub.is_ready
        status = "ok" if ready else "draining" if self._hub.draining else "not ready"
        return (200 if ready else 503), {"status": status, "models": states}

    def ping(self, sees: Sees) -> int:
        """Return 200 if the sole or default model is loaded. Without one, return 200 if the gateway is ready.

        Raises:
            GatewayError: the model is not loaded, and the caller may see it.
        """
        try:
            model = self._catalog.find(SOLE, everybody)
        except UnknownModel:
            return 200 if self._hub.is_ready else 503
        if model.state != "ready" and sees(model.name):
            raise model.not_ready()
        return 200 if model.state == "ready" else 503
