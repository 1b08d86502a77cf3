"""The routes that operators and probes ask. None of them runs a model, waits in a queue, or needs a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    from ..hub import Hub


class Health:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def live(self) -> dict[str, Any]:
        """200 while the loop turns; never depends on a model."""
        return {"status": "ok", "version": __version__}

    def ready(self) -> tuple[int, dict[str, Any]]:
        """200 when not draining and every required model is ready."""
        states = {model.name: model.state for model in self._hub.models.values()}
        ready = self._hub.is_ready
        status = "ok" if ready else "draining" if self._hub.draining else "not ready"
        return (200 if ready else 503), {"status": status, "models": states}
