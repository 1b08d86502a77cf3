"""From a path to what answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from served import Model, Served

from gateway.hookspecs import hookimpl
from gateway.spec import Endpoint

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


def echo(name: str) -> Model:
    return Model({"predict": lambda body: f'"{name}"'.encode(), "chat_completions": lambda inputs: name})


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    names = ("echo", "org/model", "org/team/m-1.5_x", "predictor")
    embedder = Model({"embeddings": lambda inputs: [[1.0, 2.0]] * len(inputs["input"])})
    with Served({**{name: echo(name) for name in names}, "embedder": embedder}, default_model="echo") as served:
        yield served


@pytest.mark.parametrize("name", ["echo", "org/model", "org/team/m-1.5_x", "predictor"])
def test_every_spelling_of_predict_reaches_the_model(gateway: Served, name: str) -> None:
    encoded = name.replace("/", "%2F")
    for path in (
        f"/v1/models/{name}:predict",
        f"/v1/models/{name}:predict_binary",
        f"/v1/models/{encoded}:predict",
        f"/v1/models/{encoded}%3Apredict",
        f"/models/{name}/predict",
        f"/models/{encoded}/predict",
    ):
        answer = gateway.post(path)
        assert (answer.status, answer.json) == (200, name), path


@pytest.mark.parametrize("name", ["echo", "org/model", "org/team/m-1.5_x"])
def test_every_model_has_a_base_url_of_its_own(gateway: Served, name: str) -> None:
    answer = gateway.post(f"/models/{name}/v1/chat/completions", {**CHAT, "model": "something-else"})
    assert answer.json["choices"][0]["message"]["content"] == name
    assert answer.json["model"] == "something-else"
    listed = gateway.get(f"/models/{name}/v1/models").json["data"]
    assert [model["id"] for model in listed] == [name]
    assert gateway.get(f"/models/{name}/v1/models/{name}").json["id"] == name
    assert gateway.get(f"/models/{name}/v1/models/model").json["id"] == name


def test_below_a_models_base_url_there_is_no_other_model(gateway: Served) -> None:
    for path in ("/models/echo/v1/models/org/model", "/models/echo/v1/models/none"):
        answer = gateway.get(path)
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("name", ["echo", "org/model"])
def test_questions_about_a_model(gateway: Served, name: str) -> None:
    assert gateway.get(f"/v1/models/{name}").json["id"] == name
    assert gateway.get(f"/models/{name}/status").json["id"] == name
    loaded = gateway.get(f"/v1/models/{name}/loaded")
    assert (loaded.status, loaded.body) == (200, b"{}")
    assert gateway.get(f"/v1/models/{name}/schema").json == {"error": "No schema found"}


def test_the_name_in_a_body_chooses_on_shared_routes(gateway: Served) -> None:
    answer = gateway.post("/v1/chat/completions", {**CHAT, "model": "org/model"})
    assert answer.json["choices"][0]["message"]["content"] == "org/model"


def test_invocations_and_the_name_model_mean_the_default(gateway: Served) -> None:
    assert gateway.post("/invocations").json == "echo"
    assert gateway.post("/v1/models/model:predict").json == "echo"
    assert gateway.post("/v1/chat/completions", CHAT).json["choices"][0]["message"]["content"] == "echo"


def test_a_missing_model_names_the_candidates(serve: Callable[..., Served]) -> None:
    served = serve({"one": echo("one"), "two": echo("two")})
    answer = served.post("/v1/chat/completions", CHAT)
    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == ("missing_required_parameter", "model")
    assert "one, two" in answer.error["message"]
    assert served.post("/invocations").status == 404


def test_the_only_model_that_serves_a_route_needs_no_name(gateway: Served) -> None:
    answer = gateway.post("/v1/embeddings", {"input": "a"})
    assert (answer.status, answer.json["model"]) == (200, "embedder")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/none",
        "/v1/models/none:predict",
        "/models/none/predict",
        "/v1/models/none/loaded",
        "/v1/models/echo/x",
    ],
)
def test_an_unknown_model_is_404_and_lists_those_there_are(gateway: Served, path: str) -> None:
    method = "POST" if path.endswith("predict") else "GET"
    answer = gateway.ask(method, path, b"{}")
    assert answer.status == 404
    assert "have: echo, embedder, org/model" in str(answer.error)


def test_a_model_without_the_method_is_404_and_says_what_it_serves(gateway: Served) -> None:
    answer = gateway.post("/v1/chat/completions", {**CHAT, "model": "embedder"})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "route_not_supported", "model")
    assert "/v1/embeddings" in answer.error["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/chat/completions", "POST"),
        ("PUT", "/models/echo/v1/chat/completions", "POST"),
        ("GET", "/v1/models/echo:predict", "POST"),
        ("GET", "/models/echo/predict", "POST"),
        ("HEAD", "/models/echo/predict", "POST"),
        ("GET", "/invocations", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/v1/models/echo", "GET, HEAD"),
        ("DELETE", "/v1/models/echo", "GET, HEAD"),
        ("POST", "/v1/models/echo/loaded", "GET, HEAD"),
        ("POST", "/models/echo/status", "GET, HEAD"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("POST", "/livez", "GET, HEAD, OPTIONS"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_right(gateway: Served, method: str, path: str, allowed: str) -> None:
    answer = gateway.ask(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert "error" in answer.json


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1/nowhere", "/models/echo", "/models/echo/v1/nowhere", "/v1/", "/docs/x"]
)
def test_an_unknown_path_is_404(gateway: Served, path: str) -> None:
    answer = gateway.get(path)
    assert answer.status == 404
    assert (answer.error["code"], answer.error["type"]) == ("unknown_url", "invalid_request_error")


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/version", "/metrics", "/v1/models", "/v1/models/echo"])
def test_head_is_get_without_a_body(gateway: Served, path: str) -> None:
    got, headed = gateway.get(path), gateway.ask("HEAD", path)
    assert (headed.status, headed.body) == (got.status, b"")
    assert headed.headers["content-type"] == got.headers["content-type"]


def test_a_trailing_slash_lists_the_models_too(gateway: Served) -> None:
    assert gateway.get("/v1/models/").json["object"] == "list"
    assert gateway.get("/metrics/").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%00",
        "/v1/models/%C3%A9",
        "/v1/models/%FF",
        "/v1/models//",
        "/v1/models/:predict",
    ],
)
def test_odd_names_index_nothing(gateway: Served, path: str) -> None:
    for method in ("GET", "POST"):
        answer = gateway.ask(method, path, b"{}")
        assert answer.status in (404, 405)
        assert isinstance(answer.json, dict)


def test_a_plugins_route_is_served_in_its_dialect_and_one_without_a_dialect_harms_nobody(
    serve: Callable[..., Served],
) -> None:
    def register_endpoints(register: Callable[[Endpoint], None]) -> None:
        register(Endpoint(path="/v1/talk", method="chat_completions", dialect="openai_chat"))
        register(Endpoint(path="/v1/odd", method="chat_completions", dialect="nobodys"))

    module = ModuleType("talker")
    module.register_endpoints = hookimpl(register_endpoints)  # type: ignore[attr-defined]
    served = serve({"m": echo("m")}, plugins=[module])
    assert served.post("/v1/talk", CHAT).json["choices"][0]["message"]["content"] == "m"
    assert served.post("/models/m/v1/talk", CHAT).status == 200
    assert "/v1/talk" in served.get("/v1/models/m").json["capabilities"]["routes"]
    assert served.post("/v1/odd", CHAT).error["code"] == "unknown_url"
    assert any("nobodys" in problem.what for problem in served.hub.plugins.problems)
    assert served.post("/v1/chat/completions", CHAT).status == 200


def test_no_success_is_201(gateway: Served) -> None:
    for path, body in (("/invocations", {}), ("/v1/chat/completions", CHAT), ("/models/echo/predict", {})):
        assert gateway.post(path, body).status == 200


def test_every_answer_names_its_request(gateway: Served) -> None:
    for path in ("/livez", "/v1/models", "/nowhere", "/v1/chat/completions", "/v1/models/echo:predict"):
        answer: Any = gateway.get(path, X_Request_ID="mine-1.2_3")
        assert (answer.headers["x-request-id"], answer.headers["request-id"]) == ("mine-1.2_3", "mine-1.2_3")
        assert answer.headers["x-content-type-options"] == "nosniff"
        made_up = gateway.get(path, X_Request_ID="not good\t").headers["x-request-id"]
        assert len(made_up) == 32
