"""The API document of a gateway over models/: whatever it shows may be sent as it is, and is answered as it says."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import pytest

from gateway.testing import Gateway

Json = dict[str, Any]
PATIENCE = 120
FORM = "multipart/form-data"
# No demo model serves these, so that nothing could be sent which is answered.
UNSERVED = ("rerank", "score", "classify", "moderations", "decisions", "audio", "images")
# What a request needs that no example can know: the id of an answer that was kept.
KEPT = "/v1/responses/{response}"


def ask(gateway: Gateway, verb: str, path: str, body: Any = None) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    with closing(http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=PATIENCE)) as connection:
        data = None if body is None else json.dumps(body).encode()
        connection.request(verb.upper(), path, data, {"content-type": "application/json"} if data else {})
        response = connection.getresponse()
        return response.status, (response.getheader("content-type") or "").partition(";")[0], response.read()


def document(gateway: Gateway) -> Json:
    found: Json = json.loads(ask(gateway, "get", "/openapi.json")[2])
    return found


def operations(found: Json) -> Iterator[tuple[str, str, Json]]:
    for path, verbs in found["paths"].items():
        for verb, operation in verbs.items():
            yield verb, path, operation


def filled(path: str, operation: Json) -> str:
    shown = [parameter for parameter in operation.get("parameters", ()) if "example" in parameter]
    for parameter in shown:
        path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
    query = {parameter["name"]: parameter["example"] for parameter in shown if parameter["in"] == "query"}
    return f"{path}?{urlencode(query)}" if query else path


def check(found: Json, schema: Json, value: Any, where: str) -> None:
    """As much of JSON Schema as the document's own schemas use."""
    if "$ref" in schema:
        schema = found["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        kinds = [option for option in schema["anyOf"] if fits_type(option, value)]
        assert kinds, f"{where}: {value!r:.200}"
        check(found, kinds[0], value, where)
        return
    assert fits_type(schema, value), f"{where} is {value!r:.200}, not {schema.get('type')}"
    assert value == schema.get("const", value), where
    assert value in schema.get("enum", [value]), where
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value), f"{where} has {sorted(value)}"
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                check(found, inner, value[name], f"{where}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            check(found, schema.get("items", {}), item, f"{where}[{index}]")


TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def fits_type(schema: Json, value: Any) -> bool:
    kinds = schema.get("type", list(TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return any(isinstance(value, TYPES[kind]) for kind in kinds)


def is_left_out(verb: str, path: str, operation: Json) -> bool:
    if path.endswith("/unload"):  # 400: all of them are loaded at the start
        return True
    if path in ("/invocations", "/hot-reload"):  # 404: there are several
        return True
    return operation["tags"][0] in UNSERVED or KEPT in path


def test_every_example_of_the_demo_models_is_answered_as_the_document_says(demo: Gateway) -> None:
    found, wrong = document(demo), []
    sent = [each for each in operations(found) if not is_left_out(*each)]
    for verb, path, operation in sent:
        media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        status, kind, body = ask(demo, verb, filled(path, operation), media.get("example"))
        said = operation["responses"]["200"]["content"]
        if status != 200 or kind not in said:
            wrong.append(f"{verb} {path} {media.get('example')}: {status} {kind} {body[:300]!r}")
        elif kind == "application/json":
            check(found, said[kind]["schema"], json.loads(body), path)
    assert wrong == []
    paths = {path for _, path, _ in sent}
    assert {"/v1/chat/completions", "/v1/embeddings", "/v1/messages", "/v1/responses", "/tokenize"} <= paths
    assert {"/models/{model}/predict", "/models/digits/predict", "/v2/models/{model}/infer"} <= paths


def test_what_no_model_serves_says_so(demo: Gateway) -> None:
    found = document(demo)
    sole = found["paths"]["/invocations"]["post"]
    assert "several models" in sole["description"] and ask(demo, "post", "/invocations", {})[0] == 404
    for verb, path, operation in operations(found):
        content = operation.get("requestBody", {}).get("content", {})
        if operation["tags"][0] not in UNSERVED or "{model}" in path or FORM in content:
            continue
        status, _, body = ask(demo, verb, path, content["application/json"]["example"])
        assert status == 400, path
        check(found, operation["responses"]["default"]["content"]["application/json"]["schema"], json.loads(body), path)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
def test_the_events_of_a_stream_are_what_the_document_says(demo: Gateway, path: str) -> None:
    found = document(demo)
    operation = found["paths"][path]["post"]
    example = {**operation["requestBody"]["content"]["application/json"]["example"], "stream": True}
    status, kind, body = ask(demo, "post", path, example)
    assert (status, kind) == (200, "text/event-stream")
    words = operation["responses"]["200"]["content"][kind]["schema"]["description"].split()
    [place] = [word for word in words if word.startswith("#/components/schemas/")]
    events = [line[5:].strip() for line in body.decode().splitlines() if line.startswith("data:")]
    assert events
    for event in events:
        if event != "[DONE]":
            check(found, {"$ref": place}, json.loads(event), path)
