"""The gateway's own routes, each listed once: path, handler, scope, and whether it counts against limits.

Only this table decides which scope a route needs. `Routes` finds the row of a request, the guard compares the row's
scope with the scopes of the caller, and the row's handler answers. `access/permits.py` has the rate limits of a caller,
`access/callers.py` its scopes.

The API document shows a row's summary, and plugins cannot register the paths listed here. The routes of the dialects
come from plugins, by `register_endpoints`. Like all routes without a row, they need the scope infer.

    scope    open      no key: health, and pages that reveal nothing about this gateway
             infer     use models, and query them
             metrics   Prometheus metrics
             admin     load, change and watch models; such a request counts against no limit of its caller
    door     ""        any listener
             admin     the admin socket, and with `admin_http` keys with the scope admin; else the URL does not exist
             socket    the admin socket only
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..access.callers import Scope

WEBSOCKET = "WEBSOCKET"  # in place of a verb
LITESTARS = frozenset({"health", "pages", "metrics"})  # parts whose routes Litestar dispatches, in `litestar_app.py`
KEPT = "stored"  # the part whose routes exist if a plugin's dialect stores its answers
PAGES = ("style.css", "page.js", "start.js", "api.js")  # files below /docs/ that the pages need


@dataclass(frozen=True, slots=True, eq=False)  # compared and hashed by identity
class Route:
    """One row. `handler` names a part of the gateway and its method. Without a handler, only a plugin can answer.

    `name` is the operation id in the API document; a row without a name is not in it. `route` is the template that
    metrics and logs use for its requests, by default `template`.
    """

    verb: str
    template: str
    handler: str = ""
    summary: str = ""
    scope: Scope | Literal["open"] = "infer"
    costs: bool = True  # whether it counts against the limits of its caller; not if the answer is short and known
    door: Literal["", "admin", "socket"] = ""
    name: str = ""
    tag: str = "gateway"
    route: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "route", self.route or self.template)

    @property
    def part(self) -> str:
        return self.handler.partition(".")[0]

    @property
    def start(self) -> str:
        """The part before the first parameter, or the whole template without parameters."""
        return self.template.partition("{")[0]

    @property
    def ending(self) -> str:
        """The part after the first parameter."""
        return self.template.partition("}")[2]

    @property
    def has_parameter(self) -> bool:
        return "{" in self.template


MODEL, OF = "/v1/models/{model}", "/models/{model}"
V2, V2_MODEL, REPOSITORY = "/v2", "/v2/models/{model}", "/v2/repository"
RESPONSE, ADMIN = "/v1/responses/{response}", "/admin/models"
PREDICT = f"{MODEL}:predict"  # the route that all predict requests are counted under
RUNS = "Runs `predict` of a model"
IS_READY = "One model; 200 if it is ready and healthy"
IS_LOADED = "200 if the model is ready"
KEPT_ANSWER, FORGETS = "A stored response", "Deletes a stored response"
INPUT_ITEMS = "The input items of a response, in pages"
HOT_RELOADS = "Swaps the class of the running model for its new code"

ROUTES = (
    # health checks
    Route("GET", "/livez", "health.livez", "The process is alive", "open", name="livez"),
    Route("GET", "/health", "health.healthy", "Same as /livez", "open", name="health"),
    Route("GET", "/v2/health/live", "health.v2_live", "Same as /livez, for the OIP", "open", name="v2Live"),
    Route("GET", "/readyz", "health.readyz", "Every required model is ready", "open", name="readyz"),
    Route("GET", "/v2/health/ready", "health.v2_ready", "Same as /readyz, for the OIP", "open", name="v2Ready"),
    Route("GET", "/ping", "health.ping", "SageMaker's probe: the sole or default model is loaded", "open", name="ping"),
    # the gateway itself
    Route("GET", "/version", "health.version", "The version of the gateway", costs=False, name="version"),
    Route("GET", "/metrics", "metrics.scrape", "Prometheus text, or OpenMetrics", "metrics", name="metrics"),
    Route("GET", "/", "pages.root", "true as Truss's liveness check, or a page for browsers", "open", name="root"),
    Route("GET", "/docs", "pages.docs", scope="open"),
    Route("GET", "/docs/examples", "pages.examples", "How to call the models", name="examples"),
    Route("GET", "/docs/{name}", "pages.asset", scope="open"),  # the files in PAGES
    Route("GET", "/openapi.json", "pages.document"),
    # models
    Route("GET", "/v1/models", "models.list_all", "Every hosted model with its status", name="listModels",
          tag="models"),
    Route("GET", f"{OF}/v1/models", "models.list_one", "A list of only this model", name="listModelsOf", tag="models",
          route="/v1/models"),
    Route("GET", MODEL, "models.show", IS_READY, name="showModel", tag="models"),
    Route("GET", f"{OF}/status", "models.show", IS_READY, name="modelStatus", tag="models", route=MODEL),
    Route("GET", f"{MODEL}/loaded", "models.loaded", IS_LOADED, costs=False, name="isLoaded", tag="models"),
    Route("GET", f"{OF}/ping", "models.loaded", IS_LOADED, costs=False, name="pingModel", tag="models",
          route=f"{MODEL}/loaded"),
    Route("GET", f"{MODEL}/schema", "models.schema", "The input and output schema of predict", name="schemaOf",
          tag="models"),
    Route("POST", f"{OF}/hot-reload", "models.hot_reload", HOT_RELOADS, "admin", name="hotReload", tag="models"),
    Route("POST", "/hot-reload", "models.hot_reload", "The same for the only model or `default_model`", "admin",
          name="hotReloadSole", tag="models", route=f"{OF}/hot-reload"),
    # predict
    Route("POST", PREDICT, "predict", RUNS, name="predictTruss", tag="predict"),
    Route("POST", f"{MODEL}:predict_binary", "predict", RUNS, name="predictBinary", tag="predict", route=PREDICT),
    Route("POST", f"{OF}/predict", "predict", RUNS, name="predict", tag="predict", route=PREDICT),
    Route("POST", f"{OF}/invocations", "predict", RUNS, name="invocationsOf", tag="predict", route=PREDICT),
    Route("POST", "/invocations", "predict", "Runs `predict` of the only model or `default_model`",
          name="invocations", tag="predict", route=PREDICT),
    # websockets, which OpenAPI cannot describe
    Route(WEBSOCKET, "/v1/websocket", "websockets"),
    Route(WEBSOCKET, f"{OF}/v1/websocket", "websockets", route="/v1/websocket"),
    # stored responses
    Route("GET", RESPONSE, "stored.show", KEPT_ANSWER, name="retrieveResponse", tag="responses"),
    Route("GET", f"{OF}{RESPONSE}", "stored.show", KEPT_ANSWER, name="retrieveResponseOf", tag="responses",
          route=RESPONSE),
    Route("DELETE", RESPONSE, "stored.delete", FORGETS, name="deleteResponse", tag="responses"),
    Route("DELETE", f"{OF}{RESPONSE}", "stored.delete", FORGETS, name="deleteResponseOf", tag="responses",
          route=RESPONSE),
    Route("GET", f"{RESPONSE}/input_items", "stored.input_items", INPUT_ITEMS, name="listInputItems", tag="responses"),
    Route("GET", f"{OF}{RESPONSE}/input_items", "stored.input_items", INPUT_ITEMS, name="listInputItemsOf",
          tag="responses", route=f"{RESPONSE}/input_items"),
    # the Open Inference Protocol
    Route("GET", V2, "inference.server", "The name and extensions of the server", costs=False, name="v2Server",
          tag="inference"),
    Route("GET", V2_MODEL, "inference.metadata", "The input and output tensors of a model", name="v2Model",
          tag="inference"),
    Route("GET", f"{V2_MODEL}/ready", "inference.ready", IS_LOADED, name="v2ModelReady", tag="inference"),
    Route("GET", f"{V2_MODEL}/config", "inference.config", "The same in Triton's format", name="v2ModelConfig",
          tag="inference"),
    Route("GET", f"{V2_MODEL}/stats", "inference.stats", "Inference statistics of a model", name="v2ModelStats",
          tag="inference"),
    Route("GET", f"{V2}/models/stats", "inference.stats", "Inference statistics of all models", name="v2Stats",
          tag="inference"),
    Route("POST", f"{V2_MODEL}/infer", "inference.infer", f"{RUNS} on tensors", name="v2Infer", tag="inference"),
    Route("POST", f"{REPOSITORY}/index", "inference.index", "Every model with its state", name="v2Index",
          tag="inference"),
    Route("POST", f"{REPOSITORY}/models/{{model}}/load", "inference.load", "Loads a model and waits for it", "admin",
          name="v2Load", tag="inference"),
    Route("POST", f"{REPOSITORY}/models/{{model}}/unload", "inference.unload", "Unloads a lazy model", "admin",
          name="v2Unload", tag="inference"),
    # operators
    Route("GET", ADMIN, "admin.models", "Every model with its state, replicas and calls", "admin", door="admin"),
    Route("POST", f"{ADMIN}/{{model}}/reload", "admin.reload", "Reads its directory again and serves the result",
          "admin", door="admin"),
    Route("POST", f"{ADMIN}/{{model}}/load", "admin.load", "Loads a model that is not loaded or has failed", "admin",
          door="admin"),
    Route("POST", f"{ADMIN}/{{model}}/unload", "admin.unload", "Ends its processes and releases its devices", "admin",
          door="admin"),
    Route("POST", "/admin/reload", "admin.look", "Searches the model roots for changes", "admin", door="admin"),
    Route("POST", "/admin/keys/reload", "admin.reload_keys", "Reads the key file again", "admin", door="socket"),
    Route("GET", f"{OF}/logs", "admin.logs", "The last lines of the model's output", "admin", door="admin"),
    Route("GET", "/admin/logs", "admin.all_logs", "The last lines of all models", "admin", door="admin"),
    # any other path below these
    Route("", "/admin/{rest}", scope="admin"),
    Route("", "/v2/health/{rest}"),
    Route("", f"{REPOSITORY}/{{rest}}"),
)  # fmt: skip

ELSEWHERE = Route("", "")  # the row for paths without one: endpoints and routes of plugins, and unknown paths
OPEN = frozenset(
    [row.template for row in ROUTES if row.scope == "open" and not row.has_parameter]
    + ["/docs/"]  # redirects to /docs
    + [f"/docs/{name}" for name in PAGES]
)
HEALTH = frozenset(row.template for row in ROUTES if row.part == "health" and row.scope == "open")
OF_LITESTAR = frozenset(row.template for row in ROUTES if row.part in LITESTARS and not row.has_parameter)
PROBES = HEALTH | {"/metrics"}  # clients of these often send an address as Host
_BY_HANDLER = {row.handler: row for row in reversed(ROUTES)}
_OWN = frozenset(row.template for row in ROUTES if not row.has_parameter)
# A dialect that stores its answers brings further routes below /v1/responses/.
_OWN_BELOW = tuple({row.start for row in ROUTES if row.has_parameter and row.part != KEPT})


def answered_by(handler: str) -> Route:
    """Return the first row of a handler."""
    return _BY_HANDLER[handler]


def is_own(path: str) -> bool:
    """Whether plugins cannot register a path: a request to it must never get an answer or an error of a model."""
    return path in _OWN or path.startswith(_OWN_BELOW)
