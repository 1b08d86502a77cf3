"""From a path to what answers it, for everything that a model serves.

    /v1/chat/completions …            POST   the endpoints, `model` in the body
    /models/{id}/v1/…                 POST   the same with the model in the URL
    /v1/models/{id}:predict           POST   also :predict_binary and /models/{id}/predict
    /v1/responses/{id}                GET    a response that was kept, or DELETE; its /input_items
    /v1/models                        GET    all of them
    /v1/models/{id}                   GET    the model object; /loaded and /schema below it
    /models/{id}/status               GET    the model object too
    /models/{id}/hot-reload           POST   new code for the running instance; /hot-reload for the only model
    /invocations                      POST   predict of the sole or default model; /models/{id}/invocations of one
    /models/{id}/ping                 GET    whether it is loaded
    /v2/…                             the Open Inference Protocol, see `inference.py`

Ids may hold "/", so a path is split at known endings by us; an exact match with a registered id wins over an ending.
Litestar, whose router cannot do that, never sees these paths; `openapi.py` describes them for the API page.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from ..dialects.oip import VERSION
from ..errors import GatewayError, MethodNotAllowed, UnknownModel, UnknownURL
from ..hub import SOLE
from ..spec import Endpoint
from .admin import ROOT as ADMIN_MODELS
from .exchange import Exchange
from .guards import is_preflight, preflight
from .inference import ROUTE as INFER
from .near import V1, advice, call_of, named
from .predict import ROUTE

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub
    from .admin import Admin
    from .inference import Inference
    from .models import Models
    from .predict import Predict
    from .serving import Serving

Handler = Callable[[Exchange], Awaitable[None]]
MODELS, V1_MODELS, RESPONSES = "/models/", "/v1/models/", "/v1/responses"
V2_MODELS, V2_REPOSITORY = V2_ROOTS = ("/v2/models/", "/v2/repository/")
MODEL, HOT_RELOAD, V2_MODEL = "/v1/models/{model}", "/models/{model}/hot-reload", "/v2/models/{model}"
LOGS = "/logs"
PREDICT_VERBS = ("predict", "predict_binary")


class Routes:
    def __init__(
        self, hub: Hub, predict: Predict, serving: Serving, models: Models, inference: Inference, admin: Admin
    ) -> None:
        self._hub, self.predict, self._serving, self._models = hub, predict, serving, models
        self._inference, self._admin = inference, admin
        self._endpoints: dict[str, Endpoint] = {endpoint.path: endpoint for endpoint in hub.endpoints}
        self.others: Collection[str] = ()  # Litestar's paths, of which a request that is refused here is one too

    def find(self, exchange: Exchange) -> Handler | None:
        """The handler, with `exchange.model` set where the URL names one; None for paths that are not ours.

        Raises:
            MethodNotAllowed, UnknownURL: the path is ours, and this is no way to use it.
        """
        if exchange.method == "OPTIONS" and is_preflight(exchange):
            return preflight
        path = exchange.path
        endpoint = self._endpoints.get(path)
        if endpoint is not None:
            return self._endpoint(exchange, endpoint)
        if path.startswith(V1_MODELS):
            return self._v1_models(exchange, path[len(V1_MODELS) :])
        if path.startswith(MODELS):
            return self._model_base(exchange, path[len(MODELS) :])
        if path.startswith(f"{RESPONSES}/") and RESPONSES in self._endpoints:
            return self._kept(exchange, path)
        if path == "/v2" or path.startswith(V2_ROOTS):
            return self._v2(exchange, path)
        if path.startswith("/admin/") and exchange.is_admin and (handler := self._admins(exchange)) is not None:
            return handler
        if path == "/v1/models":
            return _only(exchange, "GET", self._models.list_all, "", path)
        if path == "/invocations":
            return _only(exchange, "POST", self.predict, "model", ROUTE)
        if path == "/hot-reload":
            return _only(exchange, "POST", self._models.hot_reload, "model", HOT_RELOAD)
        if path in self.others:
            exchange.route = path
        return None

    def name(self, exchange: Exchange) -> None:
        """Give a request that was not let in the name of its route, for those who count it; it is no model's."""
        with contextlib.suppress(GatewayError):
            self.find(exchange)
        if not exchange.route:  # an operator's, which nobody else is told of
            with contextlib.suppress(GatewayError):
                self._admins(exchange)
        exchange.asked, exchange.model = exchange.model, ""

    def _admins(self, exchange: Exchange) -> Handler | None:
        path = exchange.path
        if path.startswith(MODELS) and path.endswith(LOGS):
            return _only(exchange, "GET", self._admin.logs, path[len(MODELS) : -len(LOGS)], f"/models/{{model}}{LOGS}")
        if (found := self._admin.find(path, exchange.is_local)) is None:
            return None
        method, handler, name = found
        route = f"{ADMIN_MODELS}/{{model}}{path[path.rindex('/') :]}" if name else path
        return _only(exchange, method, handler, name, route)

    def _endpoint(self, exchange: Exchange, endpoint: Endpoint, name: str = "") -> Handler:
        return _only(exchange, endpoint.verb, self._serving.handler(endpoint), name, endpoint.path)

    def _v1_models(self, exchange: Exchange, target: str) -> Handler:
        name, colon, verb = target.rpartition(":")
        if colon and verb in PREDICT_VERBS:
            return _only(exchange, "POST", self.predict, name, ROUTE)
        if not target:
            return _only(exchange, "GET", self._models.list_all, "", "/v1/models")
        if target not in self._hub.models or not exchange.sees(target):
            for ending, handler in (("/loaded", self._models.loaded), ("/schema", self._models.schema)):
                if target.endswith(ending):
                    return _only(exchange, "GET", handler, target[: -len(ending)], f"{MODEL}{ending}")
        if exchange.method == "POST":  # a predict of somebody's who has the form of other servers in mind
            known = self._named(target, exchange)
            call = (
                call_of(self._hub, known)
                if known
                else f"POST {V1_MODELS}NAME:predict, with a name that GET {V1}/models lists"
            )
            raise method_not_allowed(exchange.path, "GET, HEAD", f"; to call it: {call}")
        return _only(exchange, "GET", self._models.show, target, MODEL)

    def _model_base(self, exchange: Exchange, target: str) -> Handler:
        name, found, rest = target.partition("/v1/")
        if found:
            return self._v1_of(exchange, name, f"/v1/{rest}")
        for ending in ("/predict", "/invocations"):
            if target.endswith(ending):
                return _only(exchange, "POST", self.predict, target[: -len(ending)], ROUTE)
        if target.endswith("/ping"):
            return _only(exchange, "GET", self._models.loaded, target[: -len("/ping")], f"{MODEL}/loaded")
        for path, endpoint in self._endpoints.items():  # /rerank and others that are not below /v1/
            if target.endswith(path):
                return self._endpoint(exchange, endpoint, target[: -len(path)])
        if target.endswith("/hot-reload"):
            return _only(exchange, "POST", self._models.hot_reload, target[: -len("/hot-reload")], HOT_RELOAD)
        if target.endswith(LOGS) and exchange.is_admin and (handler := self._admins(exchange)) is not None:
            return handler
        if target.endswith("/status"):
            return _only(exchange, "GET", self._models.show, target[: -len("/status")], MODEL)
        raise self._unknown(exchange, self._endpoints)

    def _v1_of(self, exchange: Exchange, name: str, path: str) -> Handler:
        """Below the base URL of one model there is no other."""
        endpoint = self._endpoints.get(path)
        if endpoint is not None:
            return self._endpoint(exchange, endpoint, name)
        if path.startswith(f"{RESPONSES}/") and RESPONSES in self._endpoints:
            return self._kept(exchange, path, name)
        if path in ("/v1/models", V1_MODELS):
            return _only(exchange, "GET", self._models.list_one, name, "/v1/models")
        if path.startswith(V1_MODELS):
            handler = self._v1_models(exchange, path[len(V1_MODELS) :])
            if exchange.model in (name, SOLE):
                exchange.model = name
                return handler
            raise UnknownModel(f"no model named '{exchange.model[:128]}' here (have: {name[:128]})", param="model")
        raise self._unknown(exchange, self._endpoints)

    def _kept(self, exchange: Exchange, path: str, name: str = "") -> Handler:
        handlers = self._serving.stored.handlers(path[len(RESPONSES) + 1 :])
        if handlers is None:
            raise self._unknown(exchange)
        method = "GET" if exchange.method == "HEAD" else exchange.method
        if method not in handlers:
            raise method_not_allowed(exchange.path, "GET, HEAD" + ", DELETE" * ("DELETE" in handlers))
        route = f"{RESPONSES}/{{response}}" + "/input_items" * path.endswith("/input_items")
        return _only(exchange, exchange.method, handlers[method], name, route)

    def _v2(self, exchange: Exchange, path: str) -> Handler:
        inference = self._inference
        if path == "/v2":
            return _only(exchange, "GET", inference.server, "", path)
        if path == f"{V2_REPOSITORY}index":
            return _only(exchange, "POST", inference.index, "", path)
        _, is_model, name = path.partition(f"{V2_REPOSITORY}models/")
        if is_model:
            for ending, handler in (("/load", inference.load), ("/unload", inference.unload)):
                if name.endswith(ending):
                    route = f"{V2_REPOSITORY}models/{{model}}{ending}"
                    return _only(exchange, "POST", handler, name[: -len(ending)], route)
        if not path.startswith(V2_MODELS):
            raise self._unknown(exchange)
        name = path[len(V2_MODELS) :]
        if name in self._hub.models and exchange.sees(name):
            return _only(exchange, "GET", inference.metadata, name, V2_MODEL)
        if name.endswith("/infer"):
            return _only(exchange, "POST", inference.infer, _versionless(name[: -len("/infer")]), INFER)
        if name == "stats":
            return _only(exchange, "GET", inference.stats, "", path)
        for ending, handler in (
            ("/ready", inference.ready),
            ("/config", inference.config),
            ("/stats", inference.stats),
        ):
            if name.endswith(ending):
                return _only(exchange, "GET", handler, _versionless(name[: -len(ending)]), f"{V2_MODEL}{ending}")
        if exchange.method == "POST" and (known := self._named(name, exchange)):
            advised = f"; to call it: POST {V2_MODELS}{known.name}/infer, or {call_of(self._hub, known)}"
            raise method_not_allowed(exchange.path, "GET, HEAD", advised)
        return _only(exchange, "GET", inference.metadata, _versionless(name), V2_MODEL)

    def _named(self, path: str, exchange: Exchange) -> HostedModel | None:
        """The model that a part of the path names, of those that the caller sees."""
        return named(path, self._hub.seen(exchange.sees))

    def _unknown(self, exchange: Exchange, known: Collection[str] = ()) -> UnknownURL:
        path = exchange.path[:200]
        return UnknownURL(f"unknown URL: {exchange.method} {path}{advice(path, known, self._hub, exchange.sees)}")


def _versionless(name: str) -> str:
    """The model of a name with `/versions/1` behind it.

    Raises:
        UnknownModel: models have no other version.
    """
    model, found, version = name.partition("/versions/")
    if found and version != VERSION:
        raise UnknownModel(f"model '{model[:128]}' has no version '{version[:32]}' (have: {VERSION})", param="model")
    return model


def _only(exchange: Exchange, method: str, handler: Handler, name: str, route: str) -> Handler:
    """The handler, where this is its method; `route` is what the request counts for, whichever way it is spelt."""
    exchange.route = route
    if exchange.method != method and (method, exchange.method) != ("GET", "HEAD"):
        raise method_not_allowed(exchange.path, "GET, HEAD" if method == "GET" else method)
    exchange.model = name
    return handler


def method_not_allowed(path: str, allowed: str, advice: str = "") -> MethodNotAllowed:
    return MethodNotAllowed(f"{path[:128]} allows {allowed}{advice}", headers={"allow": allowed})
