"""All hosted models by name: which model a request means, which routes it serves, and what callers may know of it.

Does not start or stop models; the hub adds and removes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..devices.placement import NO_ROOM
from ..directories.code.expected_routes import ExpectedRoutes
from ..errors import BadRequest, RouteNotSupported, UnknownModel
from ..telemetry.redaction import cut

if TYPE_CHECKING:
    from ..settings.schema import GatewaySettings, Settings
    from ..spec import Endpoint
    from .model import HostedModel

Sees = Callable[[str], bool]  # whether the caller may see the model
SOLE = "model"  # the id that every Truss client sends
ASK = "gateway ps shows why, on the machine of the gateway"


class Catalog:
    """The registry of hosted models.

    `models` maps names to models, `aliases` maps alternative names to names; `endpoints` are the routes of plugins.
    `on_forget` functions are called with the name of a model that is no longer hosted.
    """

    def __init__(self, endpoints: Sequence[Endpoint], gateway: GatewaySettings) -> None:
        self.models: dict[str, HostedModel] = {}
        self.aliases: dict[str, str] = {}
        self.endpoints, self.expected_routes = tuple(endpoints), ExpectedRoutes(endpoints)
        self.on_forget: list[Callable[[str], None]] = []
        self._gateway = gateway

    def add(self, model: HostedModel) -> None:
        """Add a model. It replaces another of the same name, such as the stand-in of a model that could not be read."""
        self.models[model.name] = model

    def remove(self, name: str) -> None:
        """Remove a model and call `on_forget`."""
        del self.models[name]
        for forget in self.on_forget:
            forget(name)

    def learn_aliases(self, settings: Settings) -> None:
        """Recompute `aliases`; call this after models or settings have changed."""
        self.aliases = settings.aliases_of(self.models)

    def seen(self, sees: Sees) -> list[HostedModel]:
        """Return the models that the caller may see. Every list or count of models must come from here."""
        return [model for model in self.models.values() if sees(model.name)]

    def reason(self, model: HostedModel, sees: Sees, is_admin: bool) -> str:
        """Return why the model is in its state. Exceptions of its code are shown to operators only.

        The text may name other models that hold the devices it needs, so only callers that see every model get it.
        """
        if model.has_no_place and len(self.seen(sees)) < len(self.models):
            return NO_ROOM
        if model.has_no_place or model.spec.is_stand_in or is_admin or self._gateway.debug or not model.reason:
            return model.reason
        return ASK

    def note(self, model: HostedModel, sees: Sees) -> str:
        """Return the model's note, and which models hold the devices to callers that see every model."""
        if not model.note or not model.holders or len(self.seen(sees)) < len(self.models):
            return model.note
        return f"{model.note}: {model.holders}"

    def find(self, name: str, sees: Sees) -> HostedModel:
        """Return the model with this name or alias, if the caller may see it.

        Raises:
            UnknownModel: no such model; the message lists the models that the caller sees.
        """
        model = self.models.get(name) or self.models.get(self.aliases.get(name, ""))
        if model is not None and sees(model.name):
            return model
        seen = self.seen(sees)
        if name == SOLE and (sole := self.sole(seen)) is not None:
            return sole
        have = ", ".join(sorted(model.name for model in seen)) or "none"
        if name == SOLE and seen:
            say = f"name one, as in /models/{min(model.name for model in seen)}/predict (have: {have})"
            raise UnknownModel(f"there are several models and no default_model; {say}", param="model")
        error = UnknownModel(f"no model named '{cut(name, 128)}' (have: {have})", param="model")
        error.asked, error.cause = name, "" if model is None else "model_hidden"
        raise error

    def find_for(self, endpoint: Endpoint, name: str | None, sees: Sees) -> HostedModel:
        """Return the model that a request to a shared route means. A named model may not serve it, see `check_serves`.

        Without a name, it is the only model that serves the route.

        Raises:
            UnknownModel: the named model does not exist.
            BadRequest: no name, and not exactly one candidate.
        """
        if name is not None:
            return self.find(name, sees)
        serving = [model for model in self.seen(sees) if self.serves(model, endpoint)]
        sole = self.sole(serving)
        if sole is not None:
            return sole
        candidates = ", ".join(model.name for model in serving) or "none"
        raise BadRequest(
            f"you must provide a model parameter (models that serve {endpoint.path}: {candidates})",
            param="model",
            code="missing_required_parameter",
        )

    def sole(self, models: list[HostedModel]) -> HostedModel | None:
        """Return the only one of these models, or the default one. Stand-ins count only if there is nothing else."""
        models = [model for model in models if not model.spec.is_stand_in] or models
        if len(models) == 1:
            return models[0]
        default = self._gateway.default_model
        return next((model for model in models if model.name == default), None)

    def method_for(self, model: HostedModel, endpoint: Endpoint) -> str | None:
        """Return the method that answers the route: its own, or one that it is derived from. None if there is neither.

        A model that has never been ready is assumed to have the method.
        """
        methods = model.capabilities.methods
        names = {method.name for method in methods}
        if not methods or endpoint.method in names:
            return endpoint.method
        derived = endpoint.derived_from in names and endpoint.method in model.spec.derive
        return endpoint.derived_from if derived else None

    def serves(self, model: HostedModel, endpoint: Endpoint) -> bool:
        if self.method_for(model, endpoint) is not None:
            return True
        if model.spec.parity == "strict":
            return False
        others = (other for other in self.endpoints if other.path == endpoint.beside)
        return any(self.method_for(model, other) is not None for other in others)

    def check_serves(self, model: HostedModel, endpoint: Endpoint) -> None:
        if not self.serves(model, endpoint):
            have = ", ".join(self.routes(model)) or "nothing over HTTP"
            asked = model.capabilities.asked
            slip = asked.get(endpoint.method) or asked.get(endpoint.derived_from or "")
            raise RouteNotSupported(
                f"model '{model.name}' does not serve {endpoint.path} (it serves: {have})"
                + (f"; {slip}" if slip else ""),
                param="model",
            )

    def routes(self, model: HostedModel) -> list[str]:
        """Return the paths that the model answers; for a model that was never loaded, a guess from its source."""
        if not (methods := model.capabilities.methods) and model.state in ("unloaded", "loading"):
            return self.expected_routes.routes(model.spec)
        predict = [f"/v1/models/{model.name}:predict"] if any(method.name == "predict" for method in methods) else []
        return predict + [endpoint.path for endpoint in self.endpoints if methods and self.serves(model, endpoint)]

    def derived(self, model: HostedModel) -> list[str]:
        """Return those of its paths for which the class has no method of its own."""
        own = {method.name for method in model.capabilities.methods if not method.derived}
        return [
            endpoint.path
            for endpoint in self.endpoints
            if own and endpoint.method not in own and self.serves(model, endpoint)
        ]
