"""The OpenAPI document: what Litestar knows of its own routes and of plugins', and beside it the routes of models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request
from litestar.enums import MediaType
from litestar.openapi.plugins import OpenAPIRenderPlugin

from ..dialects.foreign import completed
from ..dialects.oip_tensors import DATATYPES
from ..example_values import example
from ..examples import best
from .exchange import sees_of
from .forms import FORM
from .guards import OPEN
from .hoisting import hoist

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub, Sees

Json = dict[str, Any]
KEPT = 8  # documents: the last one, and those that other callers see
ANYTHING: Json = {}
OBJECT: Json = {"type": "object"}
STREAMS = ("application/octet-stream", "application/x-ndjson", "text/event-stream")
ERROR: Json = {
    "description": "An error; its code says which, its message what to do",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
COMPONENTS: Json = {
    "Error": {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "Model": {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": {"type": "string"},
            "status": {"enum": ["unloaded", "loading", "ready", "restarting", "draining", "failed"]},
            "capabilities": OBJECT,
        },
    },
}
TENSORS: Json = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape", "data"],
                "properties": {
                    "name": {"type": "string"},
                    "datatype": {"enum": list(DATATYPES)},
                    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "data": {"type": "array"},
                },
            },
        },
        "outputs": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "parameters": OBJECT,
    },
}
RESPONSE = {"name": "response", "in": "path", "required": True, "schema": {"type": "string"}}
PAGE: list[Json] = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
    {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"], "default": "desc"}},
    {"name": "after", "in": "query", "description": "Id of an item", "schema": {"type": "string"}},
    {"name": "before", "in": "query", "description": "Id of an item", "schema": {"type": "string"}},
]
NAMED = {"name": "model", "in": "query", "description": "Id or alias", "schema": {"type": "string"}}
MODEL = {"name": "model", "in": "path", "required": True, "description": "Id or alias", "schema": {"type": "string"}}


class Document(OpenAPIRenderPlugin):
    """Renders the document, anew whenever models come, go or load. All that is served below its path."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(path="/", media_type=MediaType.JSON)
        self._hub = hub
        self._rendered: dict[tuple[Any, ...], tuple[list[Any], bytes]] = {}  # with what the keys are the ids of

    def has_path(self, path: str) -> bool:
        return True  # so that Litestar adds no copy of its own

    def render(self, request: Request[Any, Any, Any], openapi_schema: Json) -> bytes:
        hub, sees = self._hub, sees_of(request.scope)
        seen = hub.seen(sees)
        of_models = [one for model in seen for one in (model.name, model.capabilities, model.spec)]
        key = (hub.keys.is_required, *map(id, of_models))
        if key not in self._rendered:
            if len(self._rendered) >= KEPT:
                self._rendered.clear()
            self._rendered[key] = of_models, msgspec.json.encode(document(openapi_schema, hub, sees))
        return self._rendered[key][1]


def document(base: Json, hub: Hub, sees: Sees) -> Json:
    """The whole document for one caller. `base` is Litestar's and stays as it is."""
    components = {**base.get("components", {})}
    components["schemas"] = {**components.get("schemas", {}), **COMPONENTS}
    paths = {**dict(_paths(hub, hub.seen(sees), components["schemas"])), **base.get("paths", {})}
    if hub.keys.is_required:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        base = {**base, "security": [{"key": []}]}
        for path in OPEN & paths.keys():
            paths[path] = {verb: {**operation, "security": []} for verb, operation in paths[path].items()}
    return {**base, "paths": paths, "components": components}


def _paths(hub: Hub, seen: list[HostedModel], components: Json) -> Iterator[tuple[str, Json]]:
    dialects = {name: completed(dialect) for name, dialect in hub.plugins.dialects().items()}
    for endpoint in hub.endpoints:
        dialect = dialects[endpoint.dialect]
        schema: Any
        schema, kind = dialect.request_schema, FORM if dialect.body == "form" else "application/json"
        summary = endpoint.summary or f"Calls `{endpoint.method}`"
        parts = endpoint.path.strip("/").split("/")
        parts = parts[1:] if parts[0] == "v1" else ["plain", *parts]  # /v1/rerank and /rerank are two operations
        name = "".join(part.title().replace("_", "") for part in parts)
        path, in_url = f"/models/{{model}}{endpoint.path}", f"{summary} The model is in the URL."
        if endpoint.verb == "GET":
            asked = _operation(f"show{name}", summary, models=_serving(hub, seen, endpoint))
            yield endpoint.path, {"get": {**asked, "parameters": [NAMED]}}
            yield path, {"get": _operation(f"show{name}Of", in_url, of=True)}
            continue
        streams = "stream" in schema.get("properties", {})
        if (shown := schema.get("example")) is not None and (model := best(seen, endpoint.method)) is not None:
            schema = {**schema, "example": {"model": model.name, **shown}}
        served = _operation(
            f"create{name}", summary, body=schema, kind=kind, models=_serving(hub, seen, endpoint), streams=streams
        )
        yield endpoint.path, {"post": served}
        yield path, {"post": _operation(f"create{name}Of", in_url, body=schema, kind=kind, of=True, streams=streams)}
    if any(dialects[endpoint.dialect].keeps for endpoint in hub.endpoints):
        yield from _kept()
    yield "/v1/models", {"get": _operation("listModels", "Every hosted model with its status")}
    shown = _operation("showModel", "One model; 200 when it is ready and healthy", of=True, schema="Model")
    yield "/v1/models/{model}", {"get": shown}
    yield "/models/{model}/status", {"get": {**shown, "operationId": "modelStatus"}}
    yield "/v1/models/{model}/loaded", {"get": _operation("isLoaded", "200 when the model is ready", of=True)}
    yield "/v1/models/{model}/schema", {"get": _operation("schemaOf", "What predict takes and returns", of=True)}
    for path, operation in (("/models/{model}/predict", "predict"), ("/v1/models/{model}:predict", "predictTruss")):
        yield path, {"post": _streamed(_operation(operation, "Runs `predict` of a model", body=ANYTHING, of=True))}
    sole = _operation("invocations", "Runs `predict` of the only model", body=ANYTHING)
    yield "/invocations", {"post": _streamed(sole)}
    yield from _v2_paths()
    for model in seen:
        if (schema := model.capabilities.input_schema) is not None:
            yield f"/models/{model.name}/predict", {"post": _typed(model, schema, components)}


def _v2_paths() -> Iterator[tuple[str, Json]]:
    """The Open Inference Protocol."""
    yield "/v2", {"get": _operation("v2Server", "The name of the server and what it can")}
    shown = _operation("v2Model", "The tensors that a model takes and gives", of=True)
    yield "/v2/models/{model}", {"get": shown}
    yield "/v2/models/{model}/ready", {"get": _operation("v2ModelReady", "200 when the model is ready", of=True)}
    yield "/v2/models/{model}/config", {"get": _operation("v2ModelConfig", "The same in Triton's words", of=True)}
    yield "/v2/models/{model}/stats", {"get": _operation("v2ModelStats", "What inference has taken so far", of=True)}
    yield "/v2/models/stats", {"get": _operation("v2Stats", "The same of every model")}
    infer = _operation("v2Infer", "Runs `predict` of a model on tensors", body=TENSORS, of=True)
    yield "/v2/models/{model}/infer", {"post": infer}
    yield "/v2/repository/index", {"post": _operation("v2Index", "Every model with its state")}
    for verb, summary in (("load", "Loads a model and waits for it"), ("unload", "Unloads a lazy model")):
        yield f"/v2/repository/models/{{model}}/{verb}", {"post": _operation(f"v2{verb.title()}", summary, of=True)}


def _kept() -> Iterator[tuple[str, Json]]:
    """The routes to responses that were kept."""
    for start, of in (("", False), ("/models/{model}", True)):
        end = "Of" * of
        show = _operation(f"retrieveResponse{end}", "A response that was kept", of=of)
        delete = _operation(f"deleteResponse{end}", "Forgets a response", of=of)
        items = _operation(f"listInputItems{end}", "What a response was the answer to, page by page", of=of)
        for operation in (show, delete, items):
            operation["parameters"] = [*operation.get("parameters", []), RESPONSE]
        items["parameters"] += PAGE
        yield f"{start}/v1/responses/{{response}}", {"get": show, "delete": delete}
        yield f"{start}/v1/responses/{{response}}/input_items", {"get": items}


def _serving(hub: Hub, seen: list[HostedModel], endpoint: Any) -> list[str]:
    return [model.name for model in seen if hub.serves(model, endpoint)]


def _typed(model: HostedModel, schema: Mapping[str, Any], components: Json) -> Json:
    """Predict of a model that says what it takes. What its schemas refer to is added to the components."""
    name = "".join(part.title() for part in model.name.replace("/", "-").replace(".", "-").split("-"))
    body = hoist(schema, f"{name}Input", components)
    body = {"example": example(schema), **body} if "$ref" not in body else body
    operation = _operation(f"predict{name}", f"Runs `predict` of {model.name}", body=body)
    if model.capabilities.output_schema is not None:
        output = hoist(model.capabilities.output_schema, f"{name}Output", components)
        operation["responses"]["200"]["content"]["application/json"]["schema"] = output
    return _streamed(operation)


def _streamed(operation: Json) -> Json:
    """A predict, which a model may answer with a stream of text or bytes, of JSON lines or of events."""
    operation["responses"]["200"]["content"].update({kind: {"schema": {"type": "string"}} for kind in STREAMS})
    return operation


def _operation(
    name: str,
    summary: str,
    *,
    body: Mapping[str, Any] | None = None,
    kind: str = "application/json",
    of: bool = False,
    schema: str | None = None,
    models: list[str] | None = None,
    streams: bool = False,
) -> Json:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"} if schema else ANYTHING}
    operation: Json = {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {"application/json": content}}, "default": ERROR},
    }
    if streams:
        operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    if models is not None:
        operation["description"] = f"Models: {', '.join(models) or 'none'}"
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": dict(body)}}}
    if of:
        operation["parameters"] = [MODEL]
    return operation
