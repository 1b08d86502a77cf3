"""The operations of the API document, by their paths: the routes of models, which Litestar does not know of.

Each says which models a caller may name there, has a body that may be sent as it is, and what is answered.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..dialects.base import Dialect
from ..dialects.foreign import completed
from ..examples import predict_input, predict_tensors
from ..learned import tell_left_out
from .choices import Choices, first_choice
from .components import ERRORS, PLACE, family
from .errors import shape_of
from .forms import FORM
from .hoisting import hoist
from .predict import LINES, OCTETS, ROUTE

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub
    from ..spec import Endpoint

Json = dict[str, Any]
JSON, SSE = "application/json", "text/event-stream"
ANYTHING: Json = {}
LISTED = 20  # models in the description of a route; its choice has all of them
OF = "/models/{model}"  # where a base URL of one model begins
RESPONSE = {"name": "response", "in": "path", "required": True, "schema": {"type": "string"}}
PAGE: list[Json] = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
    {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"], "default": "desc"}},
    {"name": "after", "in": "query", "description": "Id of an item", "schema": {"type": "string"}},
    {"name": "before", "in": "query", "description": "Id of an item", "schema": {"type": "string"}},
]
STREAMS: Json = {
    OCTETS.decode(): "Bytes, or a stream of bytes or text",
    LINES: "A stream of values, a line of JSON each",
    SSE: "The same as server-sent events, where they are asked for",
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
    """One operation. `answer` is the schema of a good answer in JSON, `answers` are those of other content types."""
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


def paths(hub: Hub, seen: list[HostedModel], components: Json) -> Iterator[tuple[str, Json]]:
    """Every path with its operations. What they refer to is added to the components."""
    choices = Choices(hub, seen, components)
    dialects = {name: completed(dialect) for name, dialect in hub.plugins.dialects().items()}
    for endpoint in hub.endpoints:
        yield from _of_endpoint(endpoint, dialects[endpoint.dialect], choices, components)
    for endpoint in hub.endpoints:
        if dialects[endpoint.dialect].keeps:
            yield from _kept(endpoint, choices)
    yield from _of_models(choices)
    yield from _of_predict(hub, choices, components)
    yield from _v2(choices)


# ── endpoints ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _of_endpoint(
    endpoint: Endpoint, dialect: Dialect, choices: Choices, components: Json
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
    request = {key: value for key, value in dialect.request_schema.items() if key != "example"}
    example = dialect.request_schema.get("example")
    said = _answers(said_by, dialect, components)
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
    # The model in the URL wins, so that one in the body says nothing.
    request = {**request, "properties": {k: v for k, v in request.get("properties", {}).items() if k != "model"}}
    below = operation(
        path, f"create{name}Of", in_url, tag, body=request, example=example, kind=kind, parameters=[of], **said
    )
    yield path, {"post": below}


def _name(path: str) -> str:
    parts = path.strip("/").split("/")
    parts = parts[1:] if parts[0] == "v1" else ["plain", *parts]  # /v1/rerank and /rerank are two operations
    return "".join(part.title().replace("_", "") for part in parts)


def _title(dialect: str) -> str:
    return "".join(part.title() for part in dialect.split("_"))


def _answers(said_by: str, dialect: Dialect, components: Json) -> Json:
    """Whole and streamed, as arguments of `operation`."""
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


# ── kept responses ───────────────────────────────────────────────────────────────────────────────────────────────────


def _kept(endpoint: Endpoint, choices: Choices) -> Iterator[tuple[str, Json]]:
    """The routes to responses that were kept."""
    serving = choices.serving(endpoint.path)
    of = _model_in_path(choices.schema(serving, _name(endpoint.path)), first_choice(serving, endpoint.method))
    for start, end, parameters in (("", "", [RESPONSE]), (OF, "Of", [of, RESPONSE])):
        path = f"{start}/v1/responses/{{response}}"
        show = operation(
            path,
            f"retrieveResponse{end}",
            "A response that was kept",
            "responses",
            answer=_named(f"{_title(endpoint.dialect)}Answer"),
            parameters=parameters,
        )
        delete = operation(
            path,
            f"deleteResponse{end}",
            "Forgets a response",
            "responses",
            answer=_named("DeletedResponse"),
            parameters=parameters,
        )
        yield path, {"get": show, "delete": delete}
        path += "/input_items"
        items = operation(
            path,
            f"listInputItems{end}",
            "What a response was the answer to, page by page",
            "responses",
            answer=_named("InputItems"),
            parameters=[*parameters, *PAGE],
        )
        yield path, {"get": items}


# ── models and predict ───────────────────────────────────────────────────────────────────────────────────────────────


def _of_models(choices: Choices) -> Iterator[tuple[str, Json]]:
    of = [_model_in_path(choices.schema(choices.models, "Gateway"), first_choice(choices.models))]
    listing = operation(
        "/v1/models", "listModels", "Every hosted model with its status", "models", answer=_named("Models")
    )
    yield "/v1/models", {"get": listing}
    one = f"{OF}/v1/models"
    own = operation(one, "listModelsOf", "A list with this one model", "models", answer=_named("Models"), parameters=of)
    yield one, {"get": own}
    for path, name, summary, answer in (
        ("/v1/models/{model}", "showModel", "One model; 200 when it is ready and healthy", _named("Model")),
        (f"{OF}/status", "modelStatus", "One model; 200 when it is ready and healthy", _named("Model")),
        ("/v1/models/{model}/loaded", "isLoaded", "200 when the model is ready", {"type": "object"}),
        ("/v1/models/{model}/schema", "schemaOf", "What predict takes and returns", _named("PredictSchema")),
    ):
        yield path, {"get": operation(path, name, summary, "models", answer=answer, parameters=of)}


def _of_predict(hub: Hub, choices: Choices, components: Json) -> Iterator[tuple[str, Json]]:
    predicting = choices.predicting()
    first = first_choice(predicting)
    of = [_model_in_path(choices.schema(predicting, "Predict"), first)]
    summary = "Runs `predict` of a model"
    example = {} if first is None else predict_input(first)
    for path, name in ((f"{OF}/predict", "predict"), (ROUTE, "predictTruss")):
        yield path, {"post": _predict(path, name, summary, example=example, parameters=of)}
    sole = hub.sole(choices.models)
    example = {} if sole is None else predict_input(sole)
    summary = "Runs `predict` of the only model, or of `default_model`"
    several = "There are several models, and none is `default_model`." if sole is None and predicting else ""
    invoked = _predict("/invocations", "invocations", summary, example=example, description=several)
    yield "/invocations", {"post": invoked}
    for model in predicting:
        if model.capabilities.input_schema is not None:
            path = f"/models/{model.name}/predict"
            yield path, {"post": _own(path, model, components)}


def _predict(path: str, name: str, summary: str, *, body: Mapping[str, Any] = ANYTHING, **more: Any) -> Json:
    """One that a model may answer with a stream of text or bytes, of JSON lines or of events."""
    streams = {kind: {"type": "string", "description": what} for kind, what in STREAMS.items()}
    return operation(path, name, summary, "predict", body=body, answers=streams, **more)


def _own(path: str, model: HostedModel, components: Json) -> Json:
    """Predict of a model that says what it takes. What its schemas refer to is added to the components.

    A schema that is more than can be shown leaves out what it says: the document is that of all models.
    """
    added: Json = {}
    try:
        schemas = _schemas(model, ChainMap(added, components))
        msgspec.json.encode([schemas, added])
    except Exception:
        tell_left_out(model, "the schema")
        description = "What this model says of its predict cannot be shown: see the log."
        return _predict(path, f"predict{_joined(model)}", f"Runs `predict` of {model.name}", description=description)
    components.update(added)
    return _predict(
        path,
        f"predict{_joined(model)}",
        f"Runs `predict` of {model.name}",
        example=predict_input(model),
        **schemas,
    )


def _schemas(model: HostedModel, components: MutableMapping[str, Any]) -> Json:
    taken, given = model.capabilities.input_schema or {}, model.capabilities.output_schema
    answer = ANYTHING if given is None else hoist(given, f"{_joined(model)}Output", components)
    return {"answer": answer, "body": hoist(taken, f"{_joined(model)}Input", components)}


def _joined(model: HostedModel) -> str:
    return "".join(part.title() for part in model.name.replace("/", "-").replace(".", "-").split("-"))


# ── the Open Inference Protocol ──────────────────────────────────────────────────────────────────────────────────────


def _v2(choices: Choices) -> Iterator[tuple[str, Json]]:
    tag, predicting = "inference", choices.predicting()
    typed = [model for model in predicting if model.capabilities.input_schema is not None]
    any_of = [_model_in_path(choices.schema(choices.models, "Gateway"), first_choice(choices.models))]
    typed_of = [_model_in_path(choices.schema(typed, "Inference"), first_choice(typed))]
    server = operation(
        "/v2", "v2Server", "The name of the server and what it can", tag, answer=_named("InferenceServer")
    )
    yield "/v2", {"get": server}
    one = "/v2/models/{model}"
    for path, name, summary, answer, parameters in (
        (one, "v2Model", "The tensors that a model takes and gives", "InferenceModel", typed_of),
        (f"{one}/ready", "v2ModelReady", "200 when the model is ready", "InferenceReady", any_of),
        (f"{one}/config", "v2ModelConfig", "The same in Triton's words", "", typed_of),
        (f"{one}/stats", "v2ModelStats", "What inference has taken so far", "InferenceStats", any_of),
        ("/v2/models/stats", "v2Stats", "The same of every model", "InferenceStats", []),
    ):
        said = _named(answer) if answer else {"type": "object"}
        yield path, {"get": operation(path, name, summary, tag, answer=said, parameters=parameters)}
    first = first_choice(typed)
    infer = operation(
        f"{one}/infer",
        "v2Infer",
        "Runs `predict` of a model on tensors",
        tag,
        body=_named("InferenceRequest"),
        example=None if first is None else predict_tensors(first),
        answer=_named("InferenceAnswer"),
        answers={OCTETS.decode(): {"type": "string", "format": "binary"}},
        parameters=typed_of,
    )
    yield f"{one}/infer", {"post": infer}
    index = operation(
        "/v2/repository/index", "v2Index", "Every model with its state", tag, answer=_named("InferenceIndex")
    )
    yield "/v2/repository/index", {"post": index}
    for verb, summary in (("load", "Loads a model and waits for it"), ("unload", "Unloads a lazy model")):
        path = f"/v2/repository/models/{{model}}/{verb}"
        order = operation(path, f"v2{verb.title()}", summary, tag, answer={"type": "object"}, parameters=any_of)
        yield path, {"post": order}
