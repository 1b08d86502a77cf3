"""Pages for people, and the document that describes the routes."""

from __future__ import annotations

import html
import json
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from served import Model, Served

from gateway import hookimpl, keys
from gateway.cli.snippets import snippets
from gateway.dialects import audio_transcriptions, rerank, tokenize
from gateway.dialects.base import Encoder, Prepared
from gateway.http import openapi
from gateway.replica import LoadError
from gateway.spec import Endpoint

Serve = Callable[..., Served]
INPUT = {
    "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "number"}, "next": {"$ref": "#/$defs/Point"}}}},
    "type": "object",
    "properties": {"points": {"type": "array", "items": {"$ref": "#/$defs/Point"}}},
}


def fine(inputs: Any) -> Any:
    return b"true"


def models() -> dict[str, Model]:
    return {
        "chat": Model({"chat_completions": fine, "predict": fine}),
        "org/typed-1.5": Model(
            {"predict": fine}, capabilities={"input_schema": INPUT, "output_schema": {"type": "null"}}
        ),
        "embed": Model({"embeddings": fine}),
    }


# ── the document ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_document_lists_hot_and_cold_routes_with_request_schemas(serve: Serve) -> None:
    document = serve(models()).get("/openapi.json").json
    assert document["openapi"].startswith("3.") and document["info"]["title"] == "Model gateway"
    paths = document["paths"]
    assert {"/v1/models", "/v1/models/{model}", "/v1/models/{model}:predict", "/livez", "/metrics", "/"} <= set(paths)
    chat = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert chat["required"] == ["messages"] and chat["properties"]["n"]["maximum"] == 16
    embeddings = paths["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert embeddings["properties"]["encoding_format"]["enum"] == ["float", "base64"]
    assert paths["/models/{model}/v1/chat/completions"]["post"]["parameters"][0]["name"] == "model"
    assert "Models: chat" in paths["/v1/chat/completions"]["post"]["description"]
    assert not any("target" in path for path in paths)


def test_a_model_that_declares_a_schema_has_its_own_path_in_it(serve: Serve) -> None:
    document = serve(models()).get("/openapi.json").json
    operation = document["paths"]["/models/org/typed-1.5/predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    point = body["properties"]["points"]["items"]["$ref"].removeprefix("#/components/schemas/")
    assert document["components"]["schemas"][point]["properties"]["x"] == {"type": "number"}
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {"type": "null"}


def test_a_recursive_schema_is_in_the_document_once_and_the_document_is_made_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[None] = []
    make = openapi.document
    monkeypatch.setattr(openapi, "document", lambda *given: made.append(None) or make(*given))
    fields = {name: {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]} for name in "abcd"}
    schema = {"$defs": {"Node": {"type": "object", "properties": fields}}, "$ref": "#/$defs/Node"}
    served = serve({"tree": Model({"predict": fine}, capabilities={"input_schema": schema, "output_schema": schema})})
    empty = len(serve({"plain": Model({"predict": fine})}).get("/openapi.json").body)
    made.clear()
    first = served.get("/openapi.json").body
    assert len(first) < empty + 5000
    assert served.get("/openapi.json").body == first
    assert len(made) == 1


def test_every_reference_and_name_of_an_operation_is_sound(serve: Serve) -> None:
    served = serve(models(), plugins=[rerank, tokenize, audio_transcriptions])
    answer = served.get("/openapi.json")
    document = answer.json
    assert "multipart/form-data" in document["paths"]["/v1/audio/translations"]["post"]["requestBody"]["content"]
    for reference in re.findall(r'"\$ref":"#/([^"]+)"', answer.body.decode()):
        found = document
        for part in reference.split("/"):
            found = found[part]
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_the_document_names_the_key_where_one_is_needed(serve: Serve) -> None:
    document = serve(models(), api_key="k").get("/openapi.json", X_API_Key="k").json
    assert document["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["paths"]["/livez"]["get"]["security"] == []
    assert "security" not in document["paths"]["/v1/models"]["get"]


def test_the_document_names_the_key_of_a_file_too_and_none_where_none_is_needed(serve: Serve, tmp_path: Path) -> None:
    key, text = keys.create("alice")
    keys.write(tmp_path / "keys.toml", [key])
    served = serve(models(), keys_file=tmp_path / "keys.toml")
    assert served.get("/openapi.json", X_API_Key=text).json["security"] == [{"key": []}]
    assert "security" not in serve(models()).get("/openapi.json").json


def test_a_route_that_streams_says_so(serve: Serve) -> None:
    paths = serve(models()).get("/openapi.json").json["paths"]
    for path in ("/v1/chat/completions", "/models/{model}/v1/chat/completions"):
        assert "text/event-stream" in paths[path]["post"]["responses"]["200"]["content"]
    assert "text/event-stream" not in paths["/v1/embeddings"]["post"]["responses"]["200"]["content"]
    for path in ("/v1/models/{model}:predict", "/models/org/typed-1.5/predict", "/invocations"):
        kinds = set(paths[path]["post"]["responses"]["200"]["content"])
        assert kinds == {"application/json", "application/octet-stream", "application/x-ndjson", "text/event-stream"}


# ── the API page ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_api_page_loads_only_what_the_gateway_serves(serve: Serve) -> None:
    served = serve(models())
    page = served.get("/docs")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    wanted = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert len(wanted) == 4 and not any("//" in link for link in wanted)
    for link in wanted:
        asset = served.get(f"/{link}")
        assert asset.status == 200 and asset.body
        assert asset.headers["x-content-type-options"] == "nosniff"
    assert b'url: "openapi.json"' in served.get("/docs/start.js").body


@pytest.mark.parametrize("name", ["none.js", "..%2f__init__.py", "swagger-ui.js.map", "%2e%2e%2findex.html"])
def test_nothing_else_lies_beside_it(serve: Serve, name: str) -> None:
    assert serve(models()).get(f"/docs/{name}").status == 404


def test_bound_elsewhere_there_is_no_api_page(serve: Serve) -> None:
    served = serve(models(), host="0.0.0.0", api_key="k")
    assert served.get("/docs", X_API_Key="k").status == 404
    assert served.get("/openapi.json", X_API_Key="k").status == 200


# ── the start page ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_root_is_true_for_programs_and_a_page_for_browsers(serve: Serve) -> None:
    served = serve(models())
    for accept in ("*/*", "application/json", ""):
        answer = served.get("/", Accept=accept)
        assert (answer.json, answer.headers["content-type"]) == (True, "application/json")
    page = served.get("/", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert page.headers["content-type"].startswith("text/html")
    assert (
        page.headers["content-security-policy"]
        == "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    )
    assert page.headers["vary"] == "accept"


def test_the_start_page_shows_models_states_links_and_commands(serve: Serve) -> None:
    broken = Model({"predict": fine}, loads=[LoadError("<b>no weights</b>", fatal=True)])
    served = serve({**models(), "broken": broken}, debug=True)
    served.wait_until(lambda: served.hub.models["broken"].state == "failed")
    page = served.get("/", Accept="text/html").body.decode()
    for name in ("chat", "org/typed-1.5", "embed", "broken"):
        assert f"<td>{name}</td>" in page
    assert '<span class="ready">ready</span>' in page and '<span class="failed">failed</span>' in page
    assert "<b>" not in page and "&lt;b&gt;no weights" in page
    assert "src=" not in page and "http" not in "".join(re.findall(r'href="([^"]+)"', page))
    assert f"curl -N {served.url}/v1/chat/completions" in page
    assert f"curl {served.url}/v1/embeddings" in page
    for link in re.findall(r'href="([^"]+)"', page):
        assert served.get(link).status in (200, 503)


@pytest.mark.parametrize("has_key", [False, True])
def test_the_start_page_and_the_document_show_the_examples_of_the_terminal(
    serve: Serve, tmp_path: Path, has_key: bool
) -> None:
    file = tmp_path / "keys.toml"
    key, text = keys.create("alice")
    if has_key:
        keys.write(file, [key])
    served = serve(models(), keys_file=file)
    auth = {"Authorization": f"Bearer {text}"}
    page = html.unescape(served.get("/", Accept="text/html", **auth).body.decode())
    printed = snippets(served.hub, served.url) or ""
    assert printed and printed in page and text not in page
    assert ("$GATEWAY_API_KEY" in printed) == ('os.environ["GATEWAY_API_KEY"]' in printed) == has_key
    assert page.count("$GATEWAY_API_KEY") == 3 * has_key  # for chat, embeddings and predict
    assert "/v1/models/chat:predict" in page or "/v1/models/org/typed-1.5:predict" in page
    assert "/predict" not in page  # one spelling
    document = served.get("/openapi.json", **auth).json
    for path, name in (("/v1/chat/completions", "chat"), ("/v1/embeddings", "embed")):
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["example"]["model"] == name
        for value in schema["example"].values():
            assert json.dumps(value) in page


class Echo:
    """A dialect of a stranger, who read what a dialect does and not which class it extends."""

    request_schema: ClassVar[Any] = {"type": "object", "properties": [1]}

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        return Prepared(body.get("model"), body)

    def encoder(self, prepared: Prepared, context: Any) -> Encoder:
        return Echoed()


class Echoed(Encoder):
    def feed(self, items: list[Any], run: int = 0) -> bytes:
        self.items = items
        return b""

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        return json.dumps(self.items).encode(), []


def test_a_dialect_without_our_base_class_is_served_and_stands_on_the_api_page(serve: Serve) -> None:
    plugin = types.ModuleType("stranger")
    plugin.register_dialects = hookimpl(lambda register: register("echo", Echo()))  # type: ignore[attr-defined]
    endpoint = Endpoint(path="/v1/echo", method="echo", dialect="echo")
    plugin.register_endpoints = hookimpl(lambda register: register(endpoint))  # type: ignore[attr-defined]
    served = serve({"m": Model({"echo": lambda inputs: "back"})}, plugins=[plugin])
    assert served.post("/v1/echo", {"model": "m"}).json == ["back"]
    document = served.get("/openapi.json").json
    assert document["paths"]["/v1/echo"]["post"]["description"] == "Models: m"
    assert "m" in served.get("/", Accept="text/html").body.decode()
