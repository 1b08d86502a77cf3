"""build_app(hub) → the ASGI app: Litestar for everything that is not hot, our front around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.config.app import AppConfig
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.types import ASGIApp

from . import __version__
from .errors import BadRequest, GatewayError, MethodNotAllowed, UnknownURL
from .http import errors
from .http.body import BodyReader
from .http.exchange import Exchange
from .http.front import Front
from .http.guards import Guard
from .http.health import Health
from .http.metrics import Metrics
from .http.models import Models
from .http.predict import Predict
from .http.routing import Routes
from .http.serving import Serving

if TYPE_CHECKING:
    from .hub import Hub


def build_app(hub: Hub) -> Front:
    """The app that uvicorn runs, for one hub."""
    gateway = hub.settings.gateway
    metrics = Metrics(hub)
    reader = BodyReader(gateway.body_idle_timeout, gateway.body_timeout)
    models = Models(hub)
    routes = Routes(hub, Predict(hub, reader), Serving(hub, reader, metrics), models)
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
    def readyz() -> Response[dict[str, Any]]:
        """Every required model is ready."""
        status, body = health.ready()
        return Response(body, status_code=status)

    @get("/v2/health/ready", operation_id="v2Ready", sync_to_thread=False)
    def v2_ready() -> Response[dict[str, Any]]:
        status, _ = health.ready()
        return Response({"ready": status == 200}, status_code=status)

    @get("/", operation_id="root", sync_to_thread=False)
    def root() -> bool:
        """True, Truss's liveness."""
        return True

    @get("/ping", operation_id="ping")
    async def ping() -> Response[dict[str, Any]]:
        """SageMaker's probe: the sole or default model, else readiness."""
        try:
            ready = await hub.find("model").is_healthy()
        except GatewayError:
            ready = hub.is_ready
        return Response({}, status_code=200 if ready else 503)

    @get("/version", operation_id="version", sync_to_thread=False)
    def version() -> dict[str, str]:
        return {"version": __version__}

    @get("/metrics", operation_id="metrics", media_type=MediaType.TEXT, sync_to_thread=False)
    def scrape(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Prometheus text, or OpenMetrics where it is asked for."""
        body, content_type = metrics.exposition(request.headers.get("accept", ""))
        return Response(body, media_type=content_type)

    @get("/v1/models", operation_id="listModels")
    async def list_models(request: Request[Any, Any, Any]) -> ASGIApp:
        """Every hosted model with its status."""
        return _asgi(models.list_all)

    config = AppConfig(
        route_handlers=[
            *(livez, healthy, v2_live, readyz, v2_ready, root, ping, version, scrape, list_models),
            *_documented(hub, routes),
        ],
        openapi_config=OpenAPIConfig(title="Model gateway", version=__version__, path="/docs"),
        exception_handlers={HTTPException: _render, Exception: _render},
        logging_config=None,
    )
    hub.plugins.configure_app(config)
    return Front(Litestar.from_config(config), Guard(hub.settings, hub.plugins), routes, metrics)


def _asgi(handler: Any) -> ASGIApp:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send)
        exchange.request_id = scope.get("gateway.request_id", "")
        await handler(exchange)

    return app


def _documented(hub: Hub, routes: Routes) -> list[Any]:
    """The hot routes as Litestar knows them. The front answers them before Litestar is asked."""

    async def through(scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send)
        exchange.request_id = scope.get("gateway.request_id", "")
        handler = routes.find(exchange)
        assert handler is not None
        await handler(exchange)

    def hot(path: str, operation: str, summary: str, method: Any = post) -> Any:
        async def handler(scope: Any) -> ASGIApp:
            return through

        handler.__doc__ = summary
        status = {"status_code": 200} if method is post else {}
        return method(path, operation_id=operation, summary=summary, **status)(handler)

    def named(path: str) -> str:
        return "create" + "".join(part.title().replace("_", "") for part in path.strip("/").split("/")[1:])

    shared = [hot(e.path, named(e.path), e.summary or f"Calls `{e.method}`.") for e in hub.endpoints]
    return [
        *shared,
        hot("/v1/models/{target:path}", "predict", "POST …/{model}:predict runs a model."),
        hot("/v1/models/{target:path}", "showModel", "One model; /loaded and /schema below it.", get),
        hot("/models/{target:path}", "callModel", "POST …/{model}/predict or …/{model}/v1/…."),
        hot("/models/{target:path}", "modelStatus", "GET …/{model}/status.", get),
        hot("/invocations", "invocations", "SageMaker's name for predict of the sole model."),
    ]


def _render(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's own errors in the shape of the path."""
    known = _translate(request, error)
    shape = errors.shape_of(request.url.path, dict(request.scope["headers"]))
    body = errors.body_of(known, shape, request.scope.get("gateway.request_id", ""))  # type: ignore[arg-type]
    headers = {name.decode(): value.decode() for name, value in errors.headers_of(known, shape)}
    return Response(body, status_code=known.status, media_type=MediaType.JSON, headers=headers)


def _translate(request: Request[Any, Any, Any], error: Exception) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    status = getattr(error, "status_code", 500)
    what = f"{request.method} {request.url.path[:200]}"
    if status == 404:
        return UnknownURL(f"unknown URL: {what}")
    if status == 405:
        return MethodNotAllowed(f"method not allowed: {what}", headers=getattr(error, "headers", None))
    if status < 500:
        found = BadRequest(str(getattr(error, "detail", error)))
        found.status = status
        return found
    errors.log_unexpected(error, what)
    return errors.unexpected(error)
