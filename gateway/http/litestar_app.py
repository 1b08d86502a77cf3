"""The routes outside the hot paths, which Litestar dispatches: health, pages, metrics, and those of plugins.

This and `document/` are the only modules that import Litestar. Its import and its app cost more than everything else
that the gateway does before its first answer, so `later.py` makes them afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from litestar import Litestar, MediaType, Request, Response, get
from litestar.config.app import AppConfig
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.params import FromPath

from .. import __version__
from ..errors import BadRequest, GatewayError, MethodNotAllowed, UnknownURL
from ..examples.calls import calls
from ..telemetry.redaction import cut
from . import errors
from .document.openapi import Document
from .exchange import REFUSED, sees_of
from .guards import wants_html
from .route_table import answered_by
from .routes import pages
from .routes.health import Health
from .suggestions import advice

if TYPE_CHECKING:
    from ..access.permits import KeyRing
    from ..dialects.base import Dialect
    from ..hosting.catalog import Catalog
    from ..hosting.hub import Hub
    from .metrics.requests import Metrics


def build(hub: Hub, keys: KeyRing, dialects: Mapping[str, Dialect], metrics: Metrics) -> Litestar:
    """Return Litestar's app for one hub."""
    catalog = hub.catalog
    handlers = [*_health(hub), *_pages(catalog, dialects, keys), _metrics(metrics)]
    shared = {"/v1/models", *(endpoint.path for endpoint in catalog.endpoints)}

    def render(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        return _render(request, error, shared, catalog)

    config = AppConfig(
        route_handlers=handlers,
        openapi_config=OpenAPIConfig(
            title="Model gateway",
            version=__version__,
            path=answered_by("pages.document").template,
            render_plugins=[Document(catalog, dialects, keys)],
        ),
        exception_handlers={HTTPException: render, Exception: render},
        logging_config=None,
    )
    hub.plugins.configure_app(config)
    return Litestar.from_config(config)


def _at(handler: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return Litestar's route decorator for the row of the route table that names this handler."""
    row = answered_by(handler)
    path = row.template.replace("{name}", "{name:str}")
    return get(path, operation_id=row.name or None, summary=row.summary, include_in_schema=bool(row.name), **options)


def _health(hub: Hub) -> list[Any]:
    health = Health(hub)

    @_at("health.livez", sync_to_thread=False)
    def livez() -> dict[str, Any]:
        """The process is alive."""
        return health.live()

    @_at("health.healthy", sync_to_thread=False)
    def healthy() -> dict[str, Any]:
        """Same as /livez."""
        return health.live()

    @_at("health.v2_live", sync_to_thread=False)
    def v2_live() -> dict[str, Any]:
        return {"live": True}

    @_at("health.readyz", sync_to_thread=False)
    def readyz(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        """Whether every required model is ready."""
        status, body = health.ready(sees_of(request.scope))
        return Response(body, status_code=status)

    @_at("health.v2_ready", sync_to_thread=False)
    def v2_ready(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        status, _ = health.ready(sees_of(request.scope))
        return Response({"ready": status == 200}, status_code=status)

    @_at("health.ping", sync_to_thread=False)
    def ping(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
        """SageMaker's probe: whether the sole or default model is loaded, or else the readiness of the gateway."""
        return Response({}, status_code=health.ping(sees_of(request.scope)))

    @_at("health.version", sync_to_thread=False)
    def version() -> dict[str, str]:
        return {"version": __version__}

    return [livez, healthy, v2_live, readyz, v2_ready, ping, version]


def _pages(catalog: Catalog, dialects: Mapping[str, Dialect], keys: KeyRing) -> list[Any]:
    def page(name: str, **headers: str) -> Response[bytes]:
        return Response(
            pages.content(name),
            media_type=pages.HTML,
            headers={"content-security-policy": pages.POLICY, "cache-control": "no-cache", **headers},
        )

    @_at("pages.root", sync_to_thread=False)
    def root(request: Request[Any, Any, Any]) -> Response[Any]:
        """`true` as Truss's liveness check, or a page for browsers."""
        if wants_html(dict(request.scope["headers"])):
            return page(pages.START, vary="accept")
        return Response(True, headers={"vary": "accept"})

    @_at("pages.docs", sync_to_thread=False)
    def docs(request: Request[Any, Any, Any]) -> Response[bytes]:
        if request.scope["raw_path"].endswith(b"/"):  # relative links would be wrong from there
            return Response(b"", status_code=307, headers={"location": "../docs"}, media_type=MediaType.TEXT)
        return page(pages.API)

    @_at("pages.asset", sync_to_thread=False)
    def asset(name: FromPath[str]) -> Response[bytes]:
        return Response(pages.asset(name), media_type=pages.ASSETS[name], headers={"cache-control": "no-cache"})

    @_at("pages.examples", media_type=MediaType.TEXT, sync_to_thread=False)
    def examples(request: Request[Any, Any, Any]) -> str:
        """How to call the models, as in the start report."""
        seen, url = catalog.seen(sees_of(request.scope)), str(request.base_url).rstrip("/")
        return "\n".join(calls(catalog, dialects, seen, url, has_key=keys.is_required))

    return [root, docs, asset, examples]


def _metrics(metrics: Metrics) -> Any:
    @_at("metrics.scrape", media_type=MediaType.TEXT)
    async def scrape(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Prometheus text, or OpenMetrics if the client asks for it."""
        body, content_type = await metrics.exposition(request.headers.get("accept", ""), sees_of(request.scope))
        if content_type.startswith("text/"):
            content_type = content_type.removesuffix("; charset=utf-8")  # Litestar adds it to text types
        return Response(body, media_type=content_type)

    return scrape


def _render(
    request: Request[Any, Any, Any], error: Exception, shared: Collection[str], catalog: Catalog
) -> Response[bytes]:
    """Answer Litestar's own errors in the format of the path."""
    known = _translate(request, error, shared, catalog)
    request.scope[REFUSED](known)  # type: ignore[literal-required]
    shape = errors.shape_of(request.url.path, dict(request.scope["headers"]))
    body = errors.body_of(known, shape, request.scope.get("gateway.request_id", ""))  # type: ignore[arg-type]
    headers = {name.decode(): value.decode("latin-1") for name, value in errors.headers_of(known, shape)}
    return Response(body, status_code=known.status, media_type=MediaType.JSON, headers=headers)


def _translate(
    request: Request[Any, Any, Any], error: Exception, shared: Collection[str], catalog: Catalog
) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    status = getattr(error, "status_code", 500)
    what = f"{cut(request.method, 32)} {cut(request.url.path, 200)}"
    if status == 404:
        near = advice(cut(request.url.path, 200), shared, catalog, sees_of(request.scope))
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
