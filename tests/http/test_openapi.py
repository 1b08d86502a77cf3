"""The API document: which models it offers to whom, what may be sent as it is, and what its families have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Model, Served

from gateway.access import keys
from gateway.dialects.anthropic import messages
from gateway.dialects.openai import completions
from gateway.dialects.openai import speech as audio_speech
from gateway.dialects.responses import route
from gateway.dialects.scoring import rerank, tokenize
from gateway.http.document.components import TAGS
from gateway.runners.replica import LoadError
from gateway.settings.schema import ModelSettings

Serve = Callable[..., Served]
Json = dict[str, Any]
PLUGINS = [messages, audio_speech, completions, route, rerank, tokenize]
TYPED = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 5}}, "required": ["n"]}


def fine(inputs: Any) -> Any:
    return b"true"


def chat(**spec: Any) -> Model:
    return Model({"chat_completions": fine}, **spec)


def document(served: Served, key: str = "") -> Json:
    found: Json = served.get("/openapi.json", **({"x_api_key": key} if key else {})).json
    return found


def operations(found: Json) -> Iterator[tuple[str, str, Json]]:
    for path, verbs in found["paths"].items():
        for verb, operation in verbs.items():
            yield verb, path, operation


def resolved(found: Json, schema: Json) -> Json:
    while "$ref" in schema:
        schema = found["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def choices(found: Json, path: str) -> list[str] | None:
    """The models that may be named in the body of a route, or in its URL."""
    [operation] = [operation for verb, operation in found["paths"][path].items() if verb != "delete"]
    if "{model}" in path:
        [schema] = [each["schema"] for each in operation["parameters"] if each["name"] == "model"]
    else:
        [media] = operation["requestBody"]["content"].values()
        schema = media["schema"]["properties"]["model"]
    return resolved(found, schema).get("enum")


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_route_offers_the_models_that_it_can_serve_and_their_aliases(serve: Serve) -> None:
    models = {"talks": chat(), "embeds": Model({"embeddings": fine}), "predicts": Model({"predict": fine})}
    found = document(serve(models, plugins=PLUGINS, aliases={"gpt-4o": "talks"}))
    for path in ("/v1/chat/completions", "/models/{model}/v1/chat/completions", "/v1/responses", "/v1/messages"):
        assert choices(found, path) == ["talks", "gpt-4o"], path
    assert choices(found, "/v1/embeddings") == ["embeds"]
    assert choices(found, "/models/{model}/predict") == choices(found, "/v1/models/{model}:predict") == ["predicts"]
    assert choices(found, "/v1/models/{model}") == ["talks", "gpt-4o", "embeds", "predicts"]
    assert choices(found, "/v1/rerank") is None, "an enum has to have something in it"


def test_a_caller_is_offered_no_model_of_others_whoever_asked_before(serve: Serve, tmp_path: Path) -> None:
    made = {"all": keys.create("all"), **{name: keys.create(name, models=(name,)) for name in ("a", "b")}}
    keys.write(tmp_path / "keys.toml", [key for key, _ in made.values()])
    served = serve({"a": chat(), "b": chat()}, keys_file=tmp_path / "keys.toml", aliases={"old-a": "a", "old-b": "b"})
    for _ in range(2):
        for who, mine, others in (("a", ["a", "old-a"], "old-b"), ("b", ["b", "old-b"], "old-a")):
            found = document(served, made[who][1])
            assert choices(found, "/v1/chat/completions") == mine
            assert others not in json.dumps(found)
        assert choices(document(served, made["all"][1]), "/v1/chat/completions") == ["a", "old-a", "b", "old-b"]


def test_a_model_that_failed_is_no_choice_and_is_one_again_when_it_is_mended(serve: Serve) -> None:
    served = serve({"good": chat(), "bad": chat(loads=[LoadError("no weights", fatal=True)])})
    served.wait_until(lambda: served.hub.catalog.models["bad"].state == "failed")
    assert choices(document(served), "/v1/chat/completions") == ["good"]
    served.do(served.hub.load(served.hub.catalog.models["bad"]))
    served.wait_until(lambda: served.hub.catalog.models["bad"].state == "ready")
    assert choices(document(served), "/v1/chat/completions") == ["good", "bad"]


def test_an_example_names_a_model_that_is_ready_and_reads_the_longest_texts(serve: Serve) -> None:
    models = {
        "lazy": chat(capabilities={"max_model_len": 9000}),
        "toy": chat(capabilities={"max_model_len": 10}),
        "real": chat(capabilities={"max_model_len": 4096}),
    }
    found = document(serve(models, plugins=PLUGINS, tables={"lazy": ModelSettings(load="lazy")}))
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
        assert found["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]["model"] == "real"
    [of] = found["paths"]["/models/{model}/v1/chat/completions"]["post"]["parameters"]
    assert of["example"] == "real"


def test_the_names_of_very_many_models_stand_in_the_document_a_few_times_each(serve: Serve) -> None:
    names = [f"a-long-name-of-a-model-{number:04}" for number in range(300)]
    empty = len(serve({}, plugins=PLUGINS).get("/openapi.json").body)
    size = len(serve({name: chat() for name in names}, plugins=PLUGINS).get("/openapi.json").body)
    assert size - empty < 4 * sum(map(len, names)) + 20_000


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_predict_shows_what_the_model_takes_and_what_its_config_shows(serve: Serve) -> None:
    shown = {"model_metadata": {"example_model_input": {"count": 3}}}
    served = serve({"typed": Model({"predict": fine}, capabilities={"input_schema": TYPED})})
    paths = document(served)["paths"]
    for path in ("/models/typed/predict", "/models/{model}/predict", "/invocations"):
        assert paths[path]["post"]["requestBody"]["content"]["application/json"]["example"] == {"n": 5}
    tensors = paths["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert tensors == {"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [5]}]}
    paths = document(serve({"untyped": Model({"predict": fine}, config=shown)}))["paths"]
    for path in ("/models/{model}/predict", "/v1/models/{model}:predict", "/invocations"):
        assert paths[path]["post"]["requestBody"]["content"]["application/json"]["example"] == {"count": 3}


@pytest.mark.parametrize("shown", ["x" * 5000, {1, 2}, float("nan"), b"\xff"], ids=["long", "set", "nan", "bytes"])
def test_an_example_of_a_config_that_nobody_could_send_is_not_shown(serve: Serve, shown: Any) -> None:
    model = Model({"predict": fine}, config={"model_metadata": {"example_model_input": shown}})
    paths = document(serve({"m": model}))["paths"]
    assert paths["/invocations"]["post"]["requestBody"]["content"]["application/json"]["example"] == {}


# ── families, keys, answers ──────────────────────────────────────────────────────────────────────────────────────────


def test_every_operation_is_of_one_family_which_is_described(serve: Serve) -> None:
    found = document(serve({"m": chat()}, plugins=PLUGINS))
    described = {tag["name"]: tag["description"] for tag in found["tags"]}
    used = [operation["tags"] for _, _, operation in operations(found)]
    assert all(len(tags) == 1 for tags in used)
    assert {tag for (tag,) in used} == set(described) <= set(TAGS)
    of = {path: operation["tags"] for _, path, operation in operations(found)}
    assert of["/v2/rerank"] == of["/models/{model}/rerank"] == ["rerank"]
    assert of["/v1/responses/{response}"] == of["/models/{model}/v1/responses"] == ["responses"]
    assert (of["/detokenize"], of["/v2/models/{model}/infer"], of["/livez"]) == (["tokens"], ["inference"], ["gateway"])


def test_a_key_may_be_sent_in_either_way_where_one_is_needed_and_nowhere_else(serve: Serve) -> None:
    found = document(serve({"m": chat()}, api_key="k"), "k")
    schemes = found["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (schemes["x-api-key"]["in"], schemes["x-api-key"]["name"]) == ("header", "x-api-key")
    assert found["security"] == [{"bearer": []}, {"x-api-key": []}]
    for path in ("/livez", "/readyz", "/ping"):
        assert found["paths"][path]["get"]["security"] == []
    open_to_all = document(serve({"m": chat()}))
    assert "security" not in open_to_all and "securitySchemes" not in open_to_all["components"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "Error"),
        ("/models/{model}/v1/responses", "Error"),
        ("/v1/messages", "AnthropicError"),
        ("/models/{model}/v1/messages", "AnthropicError"),
        ("/v1/models/{model}:predict", "TrussError"),
        ("/invocations", "TrussError"),
        ("/v2/models/{model}/infer", "InferenceError"),
        ("/v2/rerank", "Error"),
    ],
)
def test_errors_have_the_shape_of_their_route(serve: Serve, path: str, name: str) -> None:
    found = document(serve({"m": chat()}, plugins=PLUGINS))
    error = found["paths"][path]["post"]["responses"]["default"]["content"]["application/json"]["schema"]
    assert error == {"$ref": f"#/components/schemas/{name}"}


def test_answers_have_a_schema_and_streams_say_what_their_events_are(serve: Serve) -> None:
    found = document(serve({"m": chat()}, plugins=PLUGINS))
    for path, field in (("/v1/chat/completions", "choices"), ("/v1/messages", "content"), ("/v1/responses", "output")):
        content = found["paths"][path]["post"]["responses"]["200"]["content"]
        assert field in resolved(found, content["application/json"]["schema"])["required"]
        words = content["text/event-stream"]["schema"]["description"].split()
        [place] = [word for word in words if word.startswith("#/components/schemas/")]
        assert found["components"]["schemas"][place.rpartition("/")[2]]["type"] == "object"
    speech = found["paths"]["/v1/audio/speech"]["post"]["responses"]["200"]["content"]
    assert speech["audio/*"]["schema"] == {"type": "string", "format": "binary"}
