"""build_app(hub) → the ASGI app: Litestar for everything that is not hot, our front around it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from litestar import Litestar, MediaType, Request, Response, get
from litestar.config.app import AppConfig
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.params import FromPath

from . import __version__
from .errors import BadRequest, GatewayError, MethodNotAllowed, UnknownURL
from .examples import calls
from .http import errors, pages
from .http.access_log import access_log
from .http.admin import Admin
from .http.body import BodyReader
from .http.exchange import REFUSED, sees_of
from .http.front import Front
from .http.guards import Guard, wants_html
from .http.health import Health
from .http.inference import Inference
from .http.metrics import Metrics
from .http.models import Models
from .http.near import advice
from .http.openapi import Document
from .http.predict import Predict
from .http.routing import Routes
from .http.serving import Serving
from .http.websocket import WebSockets

if TYPE_CHECKING:
    from .hub import Hub


def build_app(hub: Hub) -> Front:
    """The app that uvicorn runs, for one hub."""
    gateway = hub.settings.gateway
    metrics = Metrics(hub)
    reader = BodyReader(gateway.body_idle_timeout, gateway.body_timeout)
    routes = Routes(
        hub, Predict(hub, reader), Serving(hub, reader, metrics), Models(hub), Inference(hub, reader), Admin(hub)
    )
    handlers = [*_health(hub), *_pages(hub), _metrics(metrics)]
    shared = {"/v1/models", *(endpoint.path for endpoint in hub.endpoints)}

    def render(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        return _render(request, error, shared, hub)

    config = AppConfig(
        route_handlers=handlers,
        openapi_config=OpenAPIConfig(
            title="Model gateway", version=__version__, path="/openapi.json", render_plugins=[Document(hub)]
        ),
        exception_handlers={HTTPException: render, Exception: render},
        logging_config=None,
    )
    hub.plugins.configure_app(config)
    inner = Litestar.from_config(config)
    routes.others = frozenset(route.path for route in inner.routes if not route.path_parameters)
    guard, access = Guard(hub), access_log(gateway)
    websockets = WebSockets(hub, guard, metrics, access)
    observer = hub.plugins.call_finished if hub.plugins.has_call_finished else None
    return Front(hub, inner, guard, routes, metrics, websockets, observer, access)


def _health(hub: Hub) -> list[Any]:
    health = Health(hub)

    @get("/livez", operation_id="livez", sync_to_thread=False)
    def livez() -> dict[str, Any]:
        """The process answers."""
        return health.live()

    @get("/health", operation_id="health", sync_to_thread=False)
    def healthy() -> dict[str, Any]:
        """As /livez."""
        return health.live()

    @get("/v2/health/live", operation_id="v2Live", sync_to_thread=False)
    def v2_live() -> dict[str, Any]:
        return {"live": True}

    @get("/readyz", operation_id="readyz", sync_to_thread=False)
    def readyz(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        """Every required model is ready."""
        status, body = health.ready(sees_of(request.scope))
        return Response(body, status_code=status)

    @get("/v2/health/ready", operation_id="v2Ready", sync_to_thread=False)
    def v2_ready(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        status, _ = health.ready(sees_of(request.scope))
        return Response({"ready": status == 200}, status_code=status)

    @get("/ping", operation_id="ping", sync_to_thread=False)
    def ping(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        """SageMaker's probe: whether the sole or default model is loaded, else readiness."""
        return Response({}, status_code=health.ping(sees_of(request.scope)))

    @get("/version", operation_id="version", sync_to_thread=False)
    def version() -> dict[str, str]:
        return {"version": __version__}

    return [livez, healthy, v2_live, readyz, v2_ready, ping, version]


def _pages(hub: Hub) -> list[Any]:
    def page(name: str, **headers: str) -> Response[bytes]:
        return Response(
            pages.content(name),
            media_type=pages.HTML,
            headers={"content-security-policy": pages.POLICY, "cache-control": "no-cache", **headers},
        )

    @get("/", operation_id="root", sync_to_thread=False)
    def root(request: Request[Any, Any, Any]) -> Response[Any]:
        """True, Truss's liveness; a page for a browser."""
        if wants_html(dict(request.scope["headers"])):
            return page(pages.START, vary="accept")
        return Response(True, headers={"vary": "accept"})

    @get("/docs", include_in_schema=False, sync_to_thread=False)
    def docs(request: Request[Any, Any, Any]) -> Response[bytes]:
        if request.scope["raw_path"].endswith(b"/"):  # from there its links would lead elsewhere
            return Response(b"", status_code=307, headers={"location": "../docs"}, media_type=MediaType.TEXT)
        return page(pages.API)

    @get("/docs/{name:str}", include_in_schema=False, sync_to_thread=False)
    def asset(name: FromPath[str]) -> Response[bytes]:
        return Response(pages.asset(name), media_type=pages.ASSETS[name], headers={"cache-control": "no-cache"})

    @get("/docs/examples", operation_id="examples", media_type=MediaType.TEXT, sync_to_thread=False)
    def examples(request: Request[Any, Any, Any]) -> str:
        """How to call the models, as the start report shows it."""
        seen = hub.seen(sees_of(request.scope))
        return "\n".join(calls(hub, seen, str(request.base_url).rstrip("/")))

    return [root, docs, asset, examples]


def _metrics(metrics: Metrics) -> Any:
    @get("/metrics", operation_id="metrics", media_type=MediaType.TEXT)
    async def scrape(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Prometheus text, or OpenMetrics where it is asked for."""
        body, content_type = await metrics.exposition(request.headers.get("accept", ""), sees_of(request.scope))
        if content_type.startswith("text/"):
            content_type = content_type.removesuffix("; charset=utf-8")  # Litestar adds it to texts
        return Response(body, media_type=content_type)

    return scrape


def _render(request: Request[Any, Any, Any], error: Exception, shared: Collection[str], hub: Hub) -> Response[bytes]:
    """Litestar's own errors in the shape of the path."""
    known = _translate(request, error, shared, hub)
    request.scope[REFUSED](known)  # type: ignore[literal-required]
    shape = errors.shape_of(request.url.path, dict(request.scope["headers"]))
    body = errors.body_of(known, shape, request.scope.get("gateway.request_id", ""))  # type: ignore[arg-type]
    headers = {name.decode(): value.decode("latin-1") for name, value in errors.headers_of(known, shape)}
    return Response(body, status_code=known.status, media_type=MediaType.JSON, headers=headers)


def _translate(request: Request[Any, Any, Any], error: Exception, shared: Collection[str], hub: Hub) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    status = getattr(error, "status_code", 500)
    what = f"{request.method} {request.url.path[:200]}"
    if status == 404:
        near = advice(request.url.path[:200], shared, hub, sees_of(request.scope))
        return UnknownURL(f"unknown URL: {what}{near}")
    if status == 405:
        allowed = dict(getattr(error, "headers", None) or {}).get("allow", "")
        methods = sorted({*allowed.split(", "), "HEAD"} if "GET" in allowed else allowed.split(", "))
        return MethodNotAllowed(f"method not allowed: {what}", headers={"allow": ", ".join(methods)})
    if status < 500:
        found = BadRequest(str(getattr(error, "detail", error)))
        found.status = status
        return found
    errors.log_unexpected(error, request.scope.get("gateway.request_id", ""), what)  # type: ignore[arg-type]
    return errors.unexpected(error)
