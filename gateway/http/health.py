"""The routes that operators and probes ask. None of them runs a model, waits in a queue, or needs a key.

Models are named to those only who see them: without a key, where one is needed, to nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import __version__
from ..callers import everybody
from ..errors import UnknownModel
from ..hub import SOLE

if TYPE_CHECKING:
    from ..hub import Hub, Sees


class Health:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def live(self) -> dict[str, Any]:
        """200 while the loop turns; never depends on a model."""
        return {"status": "ok", "version": __version__}

    def ready(self, sees: Sees) -> tuple[int, dict[str, Any]]:
        """200 when not draining and every required model is ready."""
        states = {model.name: model.state for model in self._hub.seen(sees)}
        ready = self._hub.is_ready
        status = "ok" if ready else "draining" if self._hub.draining else "not ready"
        return (200 if ready else 503), {"status": status, "models": states}

    def ping(self, sees: Sees) -> int:
        """200 when the sole or default model is loaded; where there is none, when the gateway is ready.

        Raises:
            GatewayError: it is not loaded; it is named to those who see it.
        """
        try:
            model = self._hub.find(SOLE, everybody)
        except UnknownModel:
            return 200 if self._hub.is_ready else 503
        if model.state != "ready" and sees(model.name):
            raise model.not_ready()
        return 200 if model.state == "ready" else 503
