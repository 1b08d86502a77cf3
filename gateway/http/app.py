"""Build the ASGI app: `Dispatcher` for the hot paths, and behind it Litestar's app for all other routes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .access_log import access_log
from .body import BodyReader
from .dispatch import Dispatcher
from .guards import Guard
from .later import Later
from .metrics.requests import Metrics
from .off_loop import Beside
from .request_entry import Entrance
from .route_table import OF_LITESTAR
from .routes.admin import Admin
from .routes.dialects import Dialects
from .routes.models import Models
from .routes.oip import OpenInference
from .routes.predict import Predict
from .routes.stored import Stored
from .routes.websocket import WebSockets
from .routing import Routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..access.permits import KeyRing
    from ..dialects.base import Dialect
    from ..hosting.hub import Hub
    from ..hosting.stored_responses import ResponsesStore


def build_app(hub: Hub, keys: KeyRing, responses: ResponsesStore) -> Dispatcher:
    """Return the app that uvicorn runs, for one hub."""
    gateway, catalog, dialects = hub.settings.gateway, hub.catalog, hub.plugins.dialects()
    metrics = Metrics(catalog)
    reader, beside = BodyReader(gateway.body_idle_timeout, gateway.body_timeout), Beside()
    stored = Stored(catalog, responses, beside, hub.shares.conversations)
    serving = Dialects(catalog, dialects, stored, hub.tails, reader, beside, metrics, gateway.limits.max_body)
    predict, inference = Predict(catalog, reader), OpenInference(hub, reader, beside)
    routes = Routes(catalog, predict, serving, Models(hub), inference, Admin(hub, keys))
    routes.others = OF_LITESTAR
    others = Later(partial(_others, hub, keys, dialects, metrics))
    if hub.plugins.has("configure_app"):  # it may add routes, and may fail: both are known before the first request
        routes.others = frozenset(route.path for route in others.build().routes if not route.path_parameters)
    guard, access = Guard(hub, keys), access_log(gateway)
    websockets = WebSockets(catalog, guard, metrics, access)
    observer = hub.plugins.call_finished if hub.plugins.has("call_finished") else None
    return Dispatcher(catalog, others, Entrance(guard, routes), predict, reader, metrics, websockets, observer, access)


def _others(hub: Hub, keys: KeyRing, dialects: Mapping[str, Dialect], metrics: Metrics) -> Any:
    from .litestar_app import build

    return build(hub, keys, dialects, metrics)
