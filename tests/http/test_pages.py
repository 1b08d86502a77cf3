"""Pages for people, and the document that describes the routes."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from served import Model, Served

from gateway import hookimpl
from gateway.access import keys
from gateway.cli.snippets import snippets
from gateway.dialects.base import Encoder, Prepared
from gateway.dialects.openai import transcriptions
from gateway.dialects.scoring import rerank, tokenize
from gateway.examples import calls
from gateway.http.document import openapi, operations
from gateway.http.route_table import HEALTH, OPEN
from gateway.http.routes import pages
from gateway.runners.replica import LoadError
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
    monkeypatch.setattr(openapi, "document", lambda *given, **more: made.append(None) or make(*given, **more))
    fields = {name: {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]} for name in "abcd"}
    schema = {"$defs": {"Node": {"type": "object", "properties": fields}}, "$ref": "#/$defs/Node"}
    served = serve({"tree": Model({"predict": fine}, capabilities={"input_schema": schema, "output_schema": schema})})
    empty = len(serve({"plain": Model({"predict": fine})}).get("/openapi.json").body)
    made.clear()
    first = served.get("/openapi.json").body
    assert len(first) < empty + 5000
    assert served.get("/openapi.json").body == first
    assert len(made) == 1


def with_odd_one() -> dict[str, Model]:
    odd = {"$defs": {"Odd": {}}, "$ref": "#/$defs/Odd", "type": "odd"}
    return models() | {"odd": Model({"predict": fine}, capabilities={"input_schema": odd, "output_schema": odd})}


@pytest.mark.parametrize(
    ("module", "name"),
    [(calls, "example"), (calls, "metadata"), (operations, "hoist")],
    ids=["example", "tensors", "definitions"],
)
def test_a_schema_that_is_more_than_can_be_shown_costs_its_own_model_what_it_says_and_no_other(
    module: Any, name: str, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find = getattr(module, name)

    def fail(schema: Any, *rest: Any) -> Any:
        if schema.get("type") == "odd":
            raise ZeroDivisionError
        return find(schema, *rest)

    monkeypatch.setattr(module, name, fail)
    served = serve(with_odd_one())
    document = served.get("/openapi.json")
    assert document.status == 200
    paths = document.json["paths"]
    assert paths["/models/org/typed-1.5/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"] != {}
    assert paths["/models/odd/predict"]["post"]["operationId"] == "predictOdd"
    assert [served.get(f"/v2/models/{known}").status for known in ("odd", "org/typed-1.5")] == [200, 200]
    assert served.get("/docs/examples").status == 200
    served.do(lambda: snippets(served.hub, served.keys, "http://127.0.0.1:1"))
    assert "of 'odd' is left out" in caplog.text
    assert "typed" not in caplog.text


def test_what_a_model_says_is_looked_at_once_for_all_pages(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    for name in ("example", "metadata"):
        find = getattr(calls, name)
        monkeypatch.setattr(
            calls, name, lambda schema, find=find, name=name: (schema and looked.append(name)) or find(schema)
        )
    served = serve({"typed": Model({"predict": fine}, capabilities={"input_schema": INPUT})})
    for _ in range(3):
        for path in ("/openapi.json", "/docs/examples", "/v2/models/typed", "/v2/models/typed/config"):
            assert served.get(path).status == 200
        monkeypatch.setattr(openapi, "KEPT", 0)
    assert sorted(looked) == ["example", "metadata"]


def test_an_example_that_is_not_an_object_is_that_of_the_only_tensor(serve: Serve) -> None:
    fields = {f"f{number}": {"type": "number"} for number in range(50)}
    several = {"properties": fields, "examples": [[1] * 1000]}
    only = {"type": "array", "items": {"type": "number"}, "minItems": 2}
    served = serve(
        {
            name: Model({"predict": fine}, capabilities={"input_schema": schema})
            for name, schema in {"several": several, "only": only}.items()
        }
    )
    found = {name: calls.predict_tensors(model)["inputs"] for name, model in served.hub.catalog.models.items()}
    assert found == {"several": [], "only": [{"name": "output-0", "datatype": "FP64", "shape": [2], "data": [1, 1]}]}


def test_an_example_of_records_is_one_of_rows_as_tensors(serve: Serve) -> None:
    row = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}

    def tables(row: Any, example: Any) -> dict[str, Any]:
        rows = {"type": "array", "items": {"anyOf": [{"type": "object"}, row]}}
        return {"properties": {"inputs": rows}, "examples": [{"inputs": example}]}

    schemas = {
        "records": tables(row, [{"a": 0, "b": 0, "c": 0}]),
        "texts": tables({**row, "items": {"type": "string"}}, [{"a": "x", "b": "y", "c": "z"}]),
        "rows": tables(row, [[1, 2, 3]]),
        "wide": tables({**row, "minItems": 10**9, "maxItems": 10**9}, [{"a": 0}]),
    }
    served = serve(
        {name: Model({"predict": fine}, capabilities={"input_schema": schema}) for name, schema in schemas.items()}
    )
    found = {name: calls.predict_tensors(model)["inputs"] for name, model in served.hub.catalog.models.items()}
    assert found == {
        "records": [{"name": "inputs", "datatype": "FP64", "shape": [1, 3], "data": [0, 0, 0]}],
        "texts": [{"name": "inputs", "datatype": "BYTES", "shape": [1, 3], "data": ["a", "a", "a"]}],
        "rows": [{"name": "inputs", "datatype": "FP64", "shape": [1, 3], "data": [1, 2, 3]}],
        "wide": [],
    }


def test_every_reference_and_name_of_an_operation_is_sound(serve: Serve) -> None:
    served = serve(models(), plugins=[rerank, tokenize, transcriptions])
    answer = served.get("/openapi.json")
    document = answer.json
    assert "multipart/form-data" in document["paths"]["/v1/audio/translations"]["post"]["requestBody"]["content"]
    for reference in re.findall(r'"\$ref":"#/([^"]+)"', answer.body.decode()):
        found = document
        for part in reference.split("/"):
            found = found[part]
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


def test_the_document_names_the_key_of_a_file_too(serve: Serve, tmp_path: Path) -> None:
    key, text = keys.create("alice")
    keys.write(tmp_path / "keys.toml", [key])
    served = serve(models(), keys_file=tmp_path / "keys.toml")
    assert served.get("/openapi.json", X_API_Key=text).json["security"] == [{"bearer": []}, {"x-api-key": []}]


def test_a_route_that_streams_says_so(serve: Serve) -> None:
    paths = serve(models()).get("/openapi.json").json["paths"]
    for path in ("/v1/chat/completions", "/models/{model}/v1/chat/completions"):
        assert "text/event-stream" in paths[path]["post"]["responses"]["200"]["content"]
    assert "text/event-stream" not in paths["/v1/embeddings"]["post"]["responses"]["200"]["content"]
    for path in ("/v1/models/{model}:predict", "/models/org/typed-1.5/predict", "/invocations"):
        kinds = set(paths[path]["post"]["responses"]["200"]["content"])
        assert kinds == {"application/json", "application/octet-stream", "application/x-ndjson", "text/event-stream"}


# ── the pages ────────────────────────────────────────────────────────────────────────────────────────────────────────

KEY = "sk-of-this-test"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def linked(page: str) -> list[str]:
    """What a page loads by itself."""
    return re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="([^"]+)"', page)


def imported(script: str) -> list[str]:
    return re.findall(r'from "\./([^"]+)"', script)


@pytest.mark.parametrize("gateway", [{}, {"api_key": KEY}, {"api_key": KEY, "host": "0.0.0.0"}], ids=str)
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_browser_opens_both_pages_without_a_key_and_they_load_only_what_the_gateway_serves(
    serve: Serve, path: str, gateway: dict[str, Any]
) -> None:
    served = serve(models(), **gateway)
    page = served.get(path, **BROWSER)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"] == POLICY
    wanted = linked(page.body.decode())
    assert wanted.pop(0) == "data:,"  # an icon that nobody is asked for
    assert [link.rpartition(".")[2] for link in wanted] == ["css", "js"]
    for link in wanted:
        asset = served.get(f"/{link}")
        assert asset.status == 200 and asset.headers["x-content-type-options"] == "nosniff"
        assert asset.headers["content-type"] == f"{pages.ASSETS[link.removeprefix('docs/')]}; charset=utf-8"
        for name in imported(asset.body.decode()):
            assert served.get(f"/docs/{name}").status == 200


@pytest.mark.parametrize("path", sorted(OPEN - HEALTH - {"/docs/"}))
def test_what_needs_no_key_is_the_same_for_everybody_and_says_nothing_of_the_gateway(serve: Serve, path: str) -> None:
    name = {"/": "start.html", "/docs": "api.html"}.get(path, path.removeprefix("/docs/"))
    file = Path(pages.__file__).with_name("static") / name
    secret = {"an-unusual-model": Model({"predict": fine})}
    for served in (serve(secret, api_key=KEY), serve(models(), debug=True)):
        for key in ({}, {"X_API_Key": KEY}, {"X_API_Key": "wrong"}):
            answer = served.get(path, **BROWSER, **key)
            assert (answer.status, answer.body) == (200, file.read_bytes())
        assert served.ask("HEAD", path, **BROWSER).status == 200


def test_the_api_page_with_a_slash_behind_it_is_found_from_wherever_a_proxy_has_it(serve: Serve) -> None:
    answer = serve(models(), api_key=KEY).get("/docs/", **BROWSER)
    assert (answer.status, answer.headers["location"], answer.body) == (307, "../docs", b"")


def test_the_files_beside_them_are_those_that_are_served_and_no_others(serve: Serve) -> None:
    files = {file.name for file in Path(pages.__file__).with_name("static").iterdir()}
    assert files == {pages.START, pages.API, *pages.ASSETS}


@pytest.mark.parametrize("name", ["none.js", "start.html", "..%2fpages.py", "style.css.map", "%2e%2e%2fpages.py"])
def test_nothing_else_lies_beside_them(serve: Serve, name: str) -> None:
    assert serve(models()).get(f"/docs/{name}").status == 404
    assert serve(models(), api_key=KEY).get(f"/docs/{name}").status == 401


@pytest.mark.parametrize("path", ["/v1/models", "/openapi.json", "/docs/examples"])
def test_what_the_pages_ask_for_needs_the_key_and_a_wrong_one_gets_a_message_to_show(serve: Serve, path: str) -> None:
    served = serve(models(), api_key=KEY)
    assert served.get(path, Authorization=f"Bearer {KEY}").status == 200
    for wrong in ({}, {"Authorization": "Bearer wrong"}):
        answer = served.get(path, **wrong)
        assert answer.status == 401 and answer.error["message"].startswith("Incorrect API key provided")
        assert b"typed" not in answer.body


@pytest.mark.parametrize("file", sorted(Path(pages.__file__).with_name("static").iterdir()), ids=lambda file: file.name)
def test_the_pages_make_text_of_what_they_show_keep_the_key_in_the_tab_and_ask_nobody_else(file: Path) -> None:
    source = file.read_text()
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
    code = r"eval\(|new Function|setTimeout\(|\bon\w+=|javascript:|<style|<script>| style="
    kept = r"localStorage|document\.cookie|indexedDB|location|history\."
    assert re.findall(f"{markup}|{code}|{kept}", source) == []
    assert re.findall(r"https?://|[\"'(=]//", source) == []
    assert (
        re.findall(r"<(?:input|select|textarea|button)[^>]* name=", source) == []
    )  # a field with a name is in the URL of a form that is sent


def test_the_root_is_true_for_programs_and_a_page_for_browsers(serve: Serve) -> None:
    for served in (serve(models()), serve(models(), api_key=KEY)):
        for accept in ("*/*", "application/json", "text/plain", ""):
            answer = served.get("/", Accept=accept)
            assert (answer.json, answer.headers["content-type"]) == (True, "application/json")
        page = served.get("/", **BROWSER)
        assert page.headers["content-type"].startswith("text/html") and page.headers["vary"] == "accept"
        assert page.headers["content-security-policy"] == POLICY


def test_the_list_of_models_has_what_the_start_page_shows(serve: Serve) -> None:
    broken = Model({"predict": fine}, loads=[LoadError("<b>no weights</b>", fatal=True)])
    served = serve({**models(), "<i>broken</i>": broken}, debug=True)
    served.wait_until(lambda: served.hub.catalog.models["<i>broken</i>"].state == "failed")
    found = {model["id"]: model for model in served.get("/v1/models").json["data"]}
    assert set(found) == {"chat", "org/typed-1.5", "embed", "<i>broken</i>"}
    assert found["chat"]["status"] == "ready" and "/v1/chat/completions" in found["chat"]["capabilities"]["routes"]
    assert "<b>no weights</b>" in found["<i>broken</i>"]["status_reason"]


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
    answer = served.get("/docs/examples", **auth)
    shown = answer.body.decode()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    printed = snippets(served.hub, served.keys, served.url) or ""
    assert printed and printed in shown and text not in shown
    assert f"curl -N {served.url}/v1/chat/completions" in shown and f"curl {served.url}/v1/embeddings" in shown
    assert ("$GATEWAY_API_KEY" in printed) == ('os.environ["GATEWAY_API_KEY"]' in printed) == has_key
    assert shown.count("$GATEWAY_API_KEY") == 3 * has_key  # for chat, embeddings and predict
    assert "/v1/models/chat:predict" in shown or "/v1/models/org/typed-1.5:predict" in shown
    assert "/predict" not in shown  # one spelling
    document = served.get("/openapi.json", **auth).json
    for path, name in (("/v1/chat/completions", "chat"), ("/v1/embeddings", "embed")):
        sent = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert sent["model"] == name
        for value in sent.values():
            assert json.dumps(value) in shown


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
    assert served.get("/docs/examples").status == 200
