"""Find the row of a path in the route table, and its handler.

    /v1/chat/completions …            the endpoints of the dialects, `model` in the body
    /models/{id}/v1/…                 the same with the model in the URL, and rows of `route_table.py`
    all other paths                   `route_table.py`

Ids may contain "/", so paths are split at known endings. An exact match with a model id takes precedence over an
ending. Litestar's router cannot do that, so it never gets the paths of models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

from ..dialects.oip.values import VERSION
from ..errors import GatewayError, MethodNotAllowed, UnknownModel, UnknownURL
from ..hosting.catalog import SOLE
from ..telemetry.redaction import cut
from .exchange import Exchange
from .guards import is_preflight, preflight
from .route_table import ELSEWHERE, KEPT, LITESTARS, OF, ROUTES, WEBSOCKET, Route, answered_by
from .routes.stored import may_be_kept
from .suggestions import V1, advice, call_of, named

if TYPE_CHECKING:
    from ..hosting.catalog import Catalog
    from .routes.admin import Admin
    from .routes.dialects import Dialects
    from .routes.models import Models
    from .routes.oip import OpenInference
    from .routes.predict import Predict

Handler = Callable[[Exchange], Awaitable[None]]
Found = tuple[Route, str]  # a row, and the model named in the path
MODELS, V1_MODELS, RESPONSES = "/models/", "/v1/models/", "/v1/responses"
V2_MODELS, REPOSITORY, ADMIN_MODELS = "/v2/models/", "/v2/repository/", "/admin/models/"
MOST_CALLED = 4096  # paths; each names a model that exists, or did
NOWHERE = Route("", "")  # an unknown path below one of ours
MODEL, LIST, LIST_ONE = answered_by("models.show"), answered_by("models.list_all"), answered_by("models.list_one")
V2_MODEL, STATS = answered_by("inference.metadata"), next(row for row in ROUTES if row.template == "/v2/models/stats")


class Routes:
    def __init__(
        self,
        catalog: Catalog,
        predict: Predict,
        serving: Dialects,
        models: Models,
        inference: OpenInference,
        admin: Admin,
    ) -> None:
        self._catalog, self.predict = catalog, predict
        self.others: Collection[str] = ()  # Litestar's paths, to name the route of a refused request
        parts = {"predict": predict, "models": models, "inference": inference, "admin": admin, "stored": serving.stored}
        self._handlers: dict[Route, Handler] = {}
        self._behind_doors: dict[Route, Handler] = {}
        for row in ROUTES:
            if row.part in parts:
                (self._behind_doors if row.door else self._handlers)[row] = _handler(row, parts)
        self._endpoints = {endpoint.path: Route(endpoint.verb, endpoint.path) for endpoint in catalog.endpoints}
        self._handlers |= {self._endpoints[endpoint.path]: serving.handler(endpoint) for endpoint in catalog.endpoints}
        exact = {row.template: row for row in ROUTES if not row.has_parameter and row.verb != WEBSOCKET}
        exact |= {V1_MODELS: LIST} | self._endpoints
        # a path without a model for a route with one means the only model
        self._exact = {path: (row, SOLE if "{model}" in row.route else "") for path, row in exact.items()}
        self._called: dict[str, Found] = {}  # rows of V1_MODELS that depend on the path alone
        self._by_verb = {(row.template, row.verb): row for row in ROUTES}
        self._below: list[tuple[str, Callable[[str, Exchange], Found]]] = [
            (V1_MODELS, self._v1_models),
            (MODELS, self._of_model),
            (V2_MODELS, self._v2_models),
            (REPOSITORY, self._repository),
            (ADMIN_MODELS, self._order),
        ]
        self._keeps = RESPONSES in self._endpoints
        if self._keeps:
            self._below.append((f"{RESPONSES}/", self._kept))
        self._calls = [pair for pair in _endings(V1_MODELS) if pair[0].startswith(":")]
        self._asks = [pair for pair in _endings(V1_MODELS) if pair[0].startswith("/")]
        first = ("/predict", "/invocations", "/ping")
        others = [(path, row) for path, row in self._endpoints.items() if not path.startswith(f"{V1}/")]  # /rerank
        of_model = [pair for pair in _endings(MODELS) if "/v1/" not in pair[0]]
        self._of_one = [pair for pair in of_model if pair[0] in first]
        self._of_one += [*others, *(pair for pair in of_model if pair[0] not in first)]
        self._of_v2, self._loads = _endings(V2_MODELS), _endings(f"{REPOSITORY}models/")
        self._orders = _endings(ADMIN_MODELS)
        self._of_kept = {row.ending: row for row in reversed(ROUTES) if row.part == KEPT and row.start != MODELS}
        self._kept_of_one = {row: self._by_verb[OF + row.template, row.verb] for row in self._of_kept.values()}

    def find(self, exchange: Exchange) -> Handler | None:
        """Return the handler, None for Litestar. Sets `exchange.row`, and `exchange.named` if the URL names a model.

        Raises:
            MethodNotAllowed, UnknownURL, UnknownModel: the path is one of ours, but not with this verb, rest or model.
        """
        method = exchange.method
        if method == "OPTIONS" and is_preflight(exchange):
            return preflight
        row, name = self._match(exchange.path, exchange)
        exchange.row = row
        handler = self._handlers.get(row)
        if handler is None and (handler := self._other(row, exchange)) is None:
            return None
        exchange.route = row.route
        if method != row.verb and (row.verb, method) != ("GET", "HEAD"):
            row, handler = self._with_verb(row, name, exchange)
            exchange.row = row
        exchange.named = exchange.counted_for = name
        return handler

    def name(self, exchange: Exchange) -> None:
        """Set the route of a refused request, for metrics and logs. It counts for no model."""
        exchange.asked = ""
        with contextlib.suppress(GatewayError):
            if not is_preflight(exchange):
                exchange.row, exchange.asked = self._match(exchange.path, exchange)
                if exchange.row in self._handlers or exchange.row in self._behind_doors:
                    exchange.route = exchange.row.route
                elif exchange.path in self.others:
                    exchange.route = exchange.path
        exchange.named = exchange.counted_for = ""

    def _other(self, row: Route, exchange: Exchange) -> Handler | None:
        """Return the handler of a row behind a door, or None for a path that Litestar handles.

        Raises:
            UnknownURL: there is no such path for this caller.
        """
        is_open = exchange.is_admin and (row.door != "socket" or exchange.is_local)
        if is_open and (handler := self._behind_doors.get(row)) is not None:
            return handler
        path = exchange.path
        if row is NOWHERE or (row.door and path.startswith(MODELS)):
            raise self._unknown(exchange, self._endpoints if path.startswith(MODELS) else ())
        if path in self.others:
            exchange.route = path
        return None

    # ── from a path to its row ───────────────────────────────────────────────────────────────────────────────────

    def _match(self, path: str, exchange: Exchange) -> Found:
        """Return the row of a path, for any verb, and the model in it.

        Raises:
            UnknownModel: it names an unknown version, or another model than the base URL.
        """
        found = self._exact.get(path) or self._called.get(path)
        if found is not None:
            if found[0] is STATS and self._is_known("stats", exchange):
                return V2_MODEL, "stats"
            return found
        for start, find in self._below:
            if path.startswith(start):
                return find(path[len(start) :], exchange)
        return self._of_litestar(path), ""

    def _v1_models(self, target: str, exchange: Exchange) -> Found:
        for ending, row in self._calls:
            if target.endswith(ending):
                found = row, target[: -len(ending)]
                if found[1] in self._catalog.models and len(self._called) < MOST_CALLED:
                    self._called[V1_MODELS + target] = found
                return found
        if not self._is_known(target, exchange):
            for ending, row in self._asks:
                if target.endswith(ending):
                    return row, target[: -len(ending)]
        return MODEL, target

    def _of_model(self, target: str, exchange: Exchange) -> Found:
        name, found, rest = target.partition("/v1/")
        if found:
            return self._v1_of(name, f"/v1/{rest}", exchange)
        for ending, row in self._of_one:
            if target.endswith(ending):
                return row, target[: -len(ending)]
        return NOWHERE, ""

    def _v1_of(self, name: str, path: str, exchange: Exchange) -> Found:
        """Match a path below the base URL of one model, where no other model exists."""
        if (row := self._endpoints.get(path)) is not None:
            return row, name
        if self._keeps and path.startswith(f"{RESPONSES}/"):
            row, _ = self._kept(path[len(RESPONSES) + 1 :], exchange)
            return self._kept_of_one.get(row, row), name
        if path in ("/v1/models", V1_MODELS):
            return LIST_ONE, name
        if path.startswith(V1_MODELS):
            row, other = self._v1_models(path[len(V1_MODELS) :], exchange)
            if other in (name, SOLE):
                return row, name
            raise UnknownModel(f"no model named '{cut(other, 128)}' here (have: {name[:128]})", param="model")
        return NOWHERE, ""

    def _kept(self, rest: str, exchange: Exchange) -> Found:
        identity, _, part = rest.partition("/")
        found = self._of_kept.get(f"/{part}" if part else "", NOWHERE)
        return (found if may_be_kept(identity) else NOWHERE), ""

    def _v2_models(self, target: str, exchange: Exchange) -> Found:
        if self._is_known(target, exchange):
            return V2_MODEL, target
        for ending, row in self._of_v2:
            if target.endswith(ending):
                return row, _versionless(target[: -len(ending)])
        return V2_MODEL, _versionless(target)

    def _repository(self, target: str, exchange: Exchange) -> Found:
        if target.startswith("models/"):
            for ending, row in self._loads:
                if target.endswith(ending):
                    return row, target[len("models/") : -len(ending)]
        return NOWHERE, ""

    def _order(self, target: str, exchange: Exchange) -> Found:
        for ending, row in self._orders:
            if target.endswith(ending):
                return row, target[: -len(ending)]
        return self._of_litestar(ADMIN_MODELS + target), ""

    def _of_litestar(self, path: str) -> Route:
        """Return the row of a path that Litestar handles. Litestar treats several slashes as one."""
        plain = f"/{'/'.join(filter(None, path.split('/')))}"
        row, _ = self._exact.get(plain, (ELSEWHERE, ""))
        if row.part in LITESTARS:
            return row
        return next((row for start, row in _REST if plain.startswith(start)), ELSEWHERE)

    def _is_known(self, name: str, exchange: Exchange) -> bool:
        return name in self._catalog.models and exchange.sees(name)

    # ── wrong verbs and unknown paths ────────────────────────────────────────────────────────────────────────────────

    def _with_verb(self, row: Route, name: str, exchange: Exchange) -> tuple[Route, Handler]:
        """Return the row with the same template for the request's verb.

        Raises:
            MethodNotAllowed: there is none.
        """
        other = self._by_verb.get((row.template, exchange.method))
        if other is not None and other in self._handlers:
            return other, self._handlers[other]
        verbs = [each.verb for each in ROUTES if each.template == row.template] or [row.verb]
        allowed = ", ".join("GET, HEAD" if verb == "GET" else verb for verb in verbs)
        raise method_not_allowed(exchange.path, allowed, self._how_to_call(row, name, exchange))

    def _how_to_call(self, row: Route, name: str, exchange: Exchange) -> str:
        """Return advice for a POST to the URL of a model, as other servers use it."""
        if exchange.method != "POST" or row not in (MODEL, V2_MODEL):
            return ""
        known = named(name, self._catalog.seen(exchange.sees))
        if known is not None:
            infer = f"POST {V2_MODELS}{known.name}/infer, or " if row is V2_MODEL else ""
            return f"; to call it: {infer}{call_of(self._catalog, known)}"
        if row is V2_MODEL:
            return ""
        return f"; to call it: POST {V1_MODELS}NAME:predict, with a name that GET {V1}/models lists"

    def _unknown(self, exchange: Exchange, known: Collection[str] = ()) -> UnknownURL:
        path = cut(exchange.path, 200)
        return UnknownURL(f"unknown URL: {exchange.method} {path}{advice(path, known, self._catalog, exchange.sees)}")


def _handler(row: Route, parts: dict[str, Any]) -> Handler:
    part, _, method = row.handler.partition(".")
    handler: Handler = getattr(parts[part], method) if method else parts[part]
    return handler


def _endings(start: str) -> list[tuple[str, Route]]:
    """Return the rows with this start and one parameter, with the text after the parameter, each template once."""
    found = {row.ending: row for row in reversed(ROUTES) if row.has_parameter and row.start == start and row.ending}
    return list(reversed(found.items()))


_REST = [(row.start, row) for row in ROUTES if row.has_parameter and (not row.handler or row.part in LITESTARS)]


def _versionless(name: str) -> str:
    """Return the model of a name that may end with `/versions/1`.

    Raises:
        UnknownModel: another version.
    """
    model, found, version = name.partition("/versions/")
    if found and version != VERSION:
        raise UnknownModel(
            f"model '{cut(model, 128)}' has no version '{cut(version, 32)}' (have: {VERSION})", param="model"
        )
    return model


def method_not_allowed(path: str, allowed: str, advice: str = "") -> MethodNotAllowed:
    return MethodNotAllowed(f"{cut(path, 128)} allows {allowed}{advice}", headers={"allow": allowed})
