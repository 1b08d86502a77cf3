"""The models that a caller may name on each route, for the API document. Each set of names is a shared schema."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .hoisting import PLACE

if TYPE_CHECKING:
    from ...hosting.catalog import Catalog
    from ...hosting.model import HostedModel

Json = dict[str, Any]
ANY_NAME: Json = {"type": "string"}


class ModelChoices:
    """The models that a caller sees, without failed ones."""

    def __init__(self, catalog: Catalog, seen: Iterable[HostedModel], components: Json) -> None:
        self.models = [model for model in seen if model.state != "failed"]
        self._routes = {model.name: frozenset(catalog.routes(model)) for model in self.models}
        self._components = components
        self._named: dict[tuple[str, ...], str] = {}
        self._aliases: dict[str, list[str]] = {}
        for alias, name in catalog.aliases.items():
            self._aliases.setdefault(name, []).append(alias)

    def serving(self, path: str) -> list[HostedModel]:
        return [model for model in self.models if path in self._routes[model.name]]

    def predicting(self) -> list[HostedModel]:
        return [model for model in self.models if f"/v1/models/{model.name}:predict" in self._routes[model.name]]

    def schema(self, models: Iterable[HostedModel], name: str) -> Json:
        """Return the schema of the models' ids and aliases. Without models it allows any name, for an enum needs
        one.
        """
        names = tuple(known for model in models for known in (model.name, *self._aliases.get(model.name, ())))
        if not names:
            return ANY_NAME
        if names not in self._named:
            self._named[names] = f"ModelsOf{name}"
            self._components[f"ModelsOf{name}"] = {"type": "string", "enum": list(names)}
        return {"$ref": f"{PLACE}{self._named[names]}"}


def first_choice(models: Iterable[HostedModel], method: str = "predict") -> HostedModel | None:
    """Return the model for examples: preferably ready, with the method itself, and with the longest context."""

    def worth(model: HostedModel) -> tuple[bool, bool, int]:
        has_method = any(known.name == method for known in model.capabilities.methods)
        return model.state == "ready", has_method, model.capabilities.max_model_len or 0

    return max(models, key=worth, default=None)
