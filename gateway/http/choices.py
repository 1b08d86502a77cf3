"""Which models a caller may name on which route, for the API document: each choice stands there once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .components import PLACE

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub

Json = dict[str, Any]
ANY_NAME: Json = {"type": "string"}


class Choices:
    """The models that a caller sees; what has failed can serve nothing, and is no choice."""

    def __init__(self, hub: Hub, seen: Iterable[HostedModel], components: Json) -> None:
        self.models = [model for model in seen if model.state != "failed"]
        self._routes = {model.name: frozenset(hub.routes(model)) for model in self.models}
        self._components = components
        self._named: dict[tuple[str, ...], str] = {}
        self._aliases: dict[str, list[str]] = {}
        for alias, name in hub.aliases.items():
            self._aliases.setdefault(name, []).append(alias)

    def serving(self, path: str) -> list[HostedModel]:
        return [model for model in self.models if path in self._routes[model.name]]

    def predicting(self) -> list[HostedModel]:
        return [model for model in self.models if f"/v1/models/{model.name}:predict" in self._routes[model.name]]

    def schema(self, models: Iterable[HostedModel], name: str) -> Json:
        """The schema of their ids and aliases; without any of them, any name: an enum cannot be empty."""
        names = tuple(known for model in models for known in (model.name, *self._aliases.get(model.name, ())))
        if not names:
            return ANY_NAME
        if names not in self._named:
            self._named[names] = f"ModelsOf{name}"
            self._components[f"ModelsOf{name}"] = {"type": "string", "enum": list(names)}
        return {"$ref": f"{PLACE}{self._named[names]}"}


def first_choice(models: Iterable[HostedModel], method: str = "predict") -> HostedModel | None:
    """The one to begin with: one that is ready, has the method itself, and reads the longest texts."""

    def worth(model: HostedModel) -> tuple[bool, bool, int]:
        has_method = any(known.name == method for known in model.capabilities.methods)
        return model.state == "ready", has_method, model.capabilities.max_model_len or 0

    return max(models, key=worth, default=None)
