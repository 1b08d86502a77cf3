"""The operations of the API document for the routes of models, which Litestar does not know.

`route_table.py` lists the routes and their summaries; plugins define the routes of dialects. Each operation says which
models a caller may name, has an example body that can be sent as it is, and describes the answer.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from ... import json_schemas
from ...dialects.base import Dialect
from ...dialects.plugin_dialects import completed
from ...examples.calls import predict_input, predict_tensors
from ...hosting.capability_cache import tell_left_out
from ..errors import shape_of
from ..forms import FORM
from ..route_table import KEPT, LITESTARS, OF, ROUTES, answered_by
from ..routes.predict import LINES, OCTETS
from .choices import ModelChoices, first_choice
from .components import ERRORS, family
from .hoisting import PLACE, hoist

if TYPE_CHECKING:
    from ...hosting.catalog import Catalog
    from ...hosting.model import HostedModel
    from ...spec import Endpoint

Json = dict[str, Any]
JSON, SSE = "application/json", "text/event-stream"
ANYTHING: Json = {}
LISTED = 20  # models listed in the description of a route; its enum has all of them
RESPONSE = {"name": "response", "in": "path", "required": True, "schema": {"type": "string"}}
PAGE: list[Json] = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
    {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"], "default": "desc"}},
    {"name": "after", "in": "query", "description": "Id of an item", "schema": {"type": "string"}},
    {"name": "before", "in": "query", "description": "Id of an item", "schema": {"type": "string"}},
]
STREAMS: Json = {
    OCTETS.decode(): "Bytes, or a stream of bytes or text",
    LINES: "A stream of values, one line of JSON for each",
    SSE: "The same as server-sent events, if the client asks for them",
}


def operation(
    path: str,
    name: str,
    summary: str,
    tag: str,
    *,
    answer: Mapping[str, Any] = ANYTHING,
    answers: Mapping[str, Mapping[str, Any]] | None = None,
    body: Mapping[str, Any] | None = None,
    example: Any = None,
    kind: str = JSON,
    parameters: Iterable[Json] = (),
    description: str = "",
) -> Json:
    """Return one operation. `answer` is the schema of a JSON answer, `answers` has schemas of other content types."""
    content = {given: {"schema": dict(schema)} for given, schema in {JSON: answer, **(answers or {})}.items()}
    error = {"$ref": f"{PLACE}{ERRORS[shape_of(path, {})]}"}
    found: Json = {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": content},
            "default": {
                "description": "An error; its message says what to do",
                "content": {JSON: {"schema": error}},
            },
        },
    }
    if description:
        found["description"] = description
    if body is not None:
        media: Json = {"schema": dict(body)}
        if example is not None:
            media["example"] = example
        found["requestBody"] = {"required": True, "content": {kind: media}}
    if given_parameters := list(parameters):
        found["parameters"] = given_parameters
    return found


def paths(
    catalog: Catalog, dialects: Mapping[str, Dialect], seen: list[HostedModel], components: Json
) -> Iterator[tuple[str, Json]]:
    """Yield every path with its operations, and add the schemas that they refer to to the components."""
    choices = ModelChoices(catalog, seen, components)
    whole = {name: completed(dialect) for name, dialect in dialects.items()}
    for endpoint in catalog.endpoints:
        yield from _of_endpoint(endpoint, whole[endpoint.dialect], choices, components)
    yield from _of_table(_details(catalog, choices, whole)).items()
    for model in choices.predicting():
        if model.capabilities.input_schema is not None:
            path = f"/models/{model.name}/predict"
            yield path, {"post": _own(path, model, components)}


def _details(catalog: Catalog, choices: ModelChoices, dialects: Mapping[str, Dialect]) -> dict[str, Json]:
    """Return, by name, the parts of each table row's operation that the table does not have."""
    details = _of_models(choices) | _of_predict(catalog, choices) | _v2(choices)
    for endpoint in catalog.endpoints:
        if dialects[endpoint.dialect].keeps:
            details |= _kept(endpoint, choices)
    return details


def _of_table(details: Mapping[str, Json]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for row in ROUTES:
        if not row.name or row.part in LITESTARS or (row.part == KEPT and row.name not in details):
            continue
        said = operation(row.template, row.name, row.summary, row.tag, **details[row.name])
        found.setdefault(row.template, {})[row.verb.lower()] = said
    return found


# ── endpoints ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_endpoint(
    endpoint: Endpoint, dialect: Dialect, choices: ModelChoices, components: Json
) -> Iterator[tuple[str, Json]]:
    serving = choices.serving(endpoint.path)
    first = first_choice(serving, endpoint.method)
    summary = endpoint.summary or f"Calls `{endpoint.method}`"
    name, said_by, tag = _name(endpoint.path), _title(endpoint.dialect), family(endpoint.path)
    which = choices.schema(serving, name)
    listed = ", ".join(model.name for model in serving[:LISTED]) or "none"
    description = f"Models: {listed}{' …' if len(serving) > LISTED else ''}"
    path, in_url = OF + endpoint.path, f"{summary} The model is in the URL."
    of = _model_in_path(which, first)
    if endpoint.verb == "GET":
        asked = {"name": "model", "in": "query", "description": "Id or alias", "schema": which}
        asked |= {} if first is None else {"example": first.name}
        answer = _component(components, f"{said_by}Answer", dialect.response_schema)
        shown = operation(
            endpoint.path, f"show{name}", summary, tag, answer=answer, parameters=[asked], description=description
        )
        yield endpoint.path, {"get": shown}
        yield path, {"get": operation(path, f"show{name}Of", in_url, tag, answer=answer, parameters=[of])}
        return
    taken = dialect.request_schema if endpoint.input_schema is None else _taken(endpoint.input_schema, name, components)
    request, example = {key: value for key, value in taken.items() if key != "example"}, taken.get("example")
    said = _answers(said_by, dialect, components)
    if endpoint.output_schema is not None:
        given = hoist(json_schemas.shown(endpoint.output_schema, "serialization"), f"{name}Answer", components)
        said["answer"] = _component(components, f"{name}Answer", given)
    kind = FORM if dialect.body == "form" else JSON
    in_body = {**request, "properties": {**request.get("properties", {})}}
    if "model" in in_body["properties"]:
        in_body["properties"]["model"] = {**in_body["properties"]["model"], **which}
    whole = example if example is None or first is None else {"model": first.name, **example}
    shared = operation(
        endpoint.path,
        f"create{name}",
        summary,
        tag,
        body=in_body,
        example=whole,
        kind=kind,
        description=description,
        **said,
    )
    yield endpoint.path, {"post": shared}
    # The model in the URL takes precedence, so a `model` in the body has no effect.
    request = {**request, "properties": {k: v for k, v in request.get("properties", {}).items() if k != "model"}}
    below = operation(
        path, f"create{name}Of", in_url, tag, body=request, example=example, kind=kind, parameters=[of], **said
    )
    yield path, {"post": below}


def _taken(given: json_schemas.Given, name: str, components: Json) -> Json:
    """Return the schema of an endpoint's own body, plus the name of the model."""
    schema = hoist(json_schemas.shown(given), f"{name}Request", components)
    return {**schema, "properties": {"model": {"type": "string"}, **schema.get("properties", {})}}


def _name(path: str) -> str:
    parts = path.strip("/").split("/")
    parts = parts[1:] if parts[0] == "v1" else ["plain", *parts]  # /v1/rerank and /rerank are two operations
    return "".join(part.title().replace("_", "") for part in parts)


def _title(dialect: str) -> str:
    return "".join(part.title() for part in dialect.split("_"))


def _answers(said_by: str, dialect: Dialect, components: Json) -> Json:
    """Return whole and streamed answers, as arguments of `operation`."""
    found: Json = {"answer": ANYTHING, "answers": {}}
    if dialect.response_schema:
        found["answer"] = _component(components, f"{said_by}Answer", dialect.response_schema)
    if dialect.response_type != JSON:
        found["answers"][dialect.response_type] = {"type": "string", "format": "binary"}
    if dialect.event_schema or "stream" in dialect.request_schema.get("properties", {}):
        events: Json = {"type": "string", "description": "Server-sent events"}
        if dialect.event_schema:
            components[f"{said_by}Event"] = dialect.event_schema
            events["description"] += f"; the data of each is JSON, as {PLACE}{said_by}Event describes it"
        found["answers"][SSE] = events
    return found


def _component(components: Json, name: str, schema: Mapping[str, Any]) -> Json:
    if not schema:
        return ANYTHING
    components[name] = schema
    return {"$ref": f"{PLACE}{name}"}


def _named(name: str) -> Json:
    return {"$ref": f"{PLACE}{name}"}


def _model_in_path(which: Json, first: HostedModel | None) -> Json:
    found = {"name": "model", "in": "path", "required": True, "description": "Id or alias", "schema": which}
    return found if first is None else {**found, "example": first.name}


# ── stored responses ─────────────────────────────────────────────────────────────────────────────────────────────────


def _kept(endpoint: Endpoint, choices: ModelChoices) -> dict[str, Json]:
    """Return the routes of stored responses."""
    serving = choices.serving(endpoint.path)
    of = _model_in_path(choices.schema(serving, _name(endpoint.path)), first_choice(serving, endpoint.method))
    found: dict[str, Json] = {}
    for end, parameters in (("", [RESPONSE]), ("Of", [of, RESPONSE])):
        answer = _named(f"{_title(endpoint.dialect)}Answer")
        found[f"retrieveResponse{end}"] = {"answer": answer, "parameters": parameters}
        found[f"deleteResponse{end}"] = {"answer": _named("DeletedResponse"), "parameters": parameters}
        found[f"listInputItems{end}"] = {"answer": _named("InputItems"), "parameters": [*parameters, *PAGE]}
    return found


# ── models and predict ───────────────────────────────────────────────────────────────────────────────────────────────


def _of_models(choices: ModelChoices) -> dict[str, Json]:
    of = {"parameters": [_model_in_path(choices.schema(choices.models, "Gateway"), first_choice(choices.models))]}
    nothing: Json = {"answer": {"type": "object"}}
    return {
        "listModels": {"answer": _named("Models")},
        "listModelsOf": {"answer": _named("Models"), **of},
        "showModel": {"answer": _named("Model"), **of},
        "modelStatus": {"answer": _named("Model"), **of},
        "isLoaded": nothing | of,
        "pingModel": nothing | of,
        "schemaOf": {"answer": _named("PredictSchema"), **of},
        "hotReload": nothing | of,
        "hotReloadSole": nothing,
    }


def _of_predict(catalog: Catalog, choices: ModelChoices) -> dict[str, Json]:
    predicting = choices.predicting()
    first, sole = first_choice(predicting), catalog.sole(choices.models)
    of = [_model_in_path(choices.schema(predicting, "Predict"), first)]
    named = _predict(example={} if first is None else predict_input(first), parameters=of)
    several = "There are several models, and none is `default_model`." if sole is None and predicting else ""
    invoked = _predict(example={} if sole is None else predict_input(sole), description=several)
    return dict.fromkeys(("predict", "predictTruss", "predictBinary", "invocationsOf"), named) | {
        "invocations": invoked
    }


def _predict(*, body: Mapping[str, Any] = ANYTHING, **more: Any) -> Json:
    """Describe a predict, which may stream text or bytes, JSON lines or events."""
    streams = {kind: {"type": "string", "description": what} for kind, what in STREAMS.items()}
    return {"body": body, "answers": streams, **more}


def _own(path: str, model: HostedModel, components: Json) -> Json:
    """Describe the predict of a model with a schema, and add the schemas that it refers to to the components.

    If the schema cannot be rendered, it is left out: the document must work for all models.
    """
    added: Json = {}
    try:
        schemas = _schemas(model, ChainMap(added, components))
        msgspec.json.encode([schemas, added])
    except Exception:
        tell_left_out(model, "the schema")
        said = _predict(description="The schema of this model's predict cannot be shown: see the log.")
    else:
        components.update(added)
        said = _predict(example=predict_input(model), **schemas)
    row = answered_by("predict")
    return operation(path, f"predict{_joined(model)}", f"Runs `predict` of {model.name}", row.tag, **said)


def _schemas(model: HostedModel, components: MutableMapping[str, Any]) -> Json:
    taken, given = model.capabilities.input_schema or {}, model.capabilities.output_schema
    answer = ANYTHING if given is None else hoist(given, f"{_joined(model)}Output", components)
    return {"answer": answer, "body": hoist(taken, f"{_joined(model)}Input", components)}


def _joined(model: HostedModel) -> str:
    return "".join(part.title() for part in model.name.replace("/", "-").replace(".", "-").split("-"))


# ── the Open Inference Protocol ──────────────────────────────────────────────────────────────────────────────────────


def _v2(choices: ModelChoices) -> dict[str, Json]:
    typed = [model for model in choices.predicting() if model.capabilities.input_schema is not None]
    first = first_choice(typed)
    any_of = {"parameters": [_model_in_path(choices.schema(choices.models, "Gateway"), first_choice(choices.models))]}
    typed_of = {"parameters": [_model_in_path(choices.schema(typed, "Inference"), first)]}
    nothing: Json = {"answer": {"type": "object"}}
    return {
        "v2Server": {"answer": _named("InferenceServer")},
        "v2Model": {"answer": _named("InferenceModel"), **typed_of},
        "v2ModelReady": {"answer": _named("InferenceReady"), **any_of},
        "v2ModelConfig": nothing | typed_of,
        "v2ModelStats": {"answer": _named("InferenceStats"), **any_of},
        "v2Stats": {"answer": _named("InferenceStats")},
        "v2Infer": {
            "body": _named("InferenceRequest"),
            "example": None if first is None else predict_tensors(first),
            "answer": _named("InferenceAnswer"),
            "answers": {OCTETS.decode(): {"type": "string", "format": "binary"}},
            **typed_of,
        },
        "v2Index": {"answer": _named("InferenceIndex")},
        "v2Load": nothing | any_of,
        "v2Unload": nothing | any_of,
    }
