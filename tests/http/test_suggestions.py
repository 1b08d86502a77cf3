"""A base URL with one /v1 too few, or one too many, is told the right one."""

from __future__ import annotations

from pathlib import Path

import pytest
from served import Model, Served

from gateway.access import keys
from gateway.http.suggestions import meant

KNOWN = {"/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/messages", "/rerank"}


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/models/team/chat-1/chat/completions", "/models/team/chat-1/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/models/m/v1/v1/messages", "/models/m/v1/messages"),
        ("/v2/chat/completions", "/v1/chat/completions"),
        ("/api/models", "/v1/models"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
    ],
)
def test_the_right_path_is_named(path: str, right: str) -> None:
    assert f"; it is {right}: " in meant(path, KNOWN)


@pytest.mark.parametrize("path", ["/v1/chat/completion", "/v1/chat/completions/", "/v1/chat/compeltions"])
def test_a_slip_of_the_pen_is_asked_about(path: str) -> None:
    assert meant(path, KNOWN) == "; did you mean /v1/chat/completions?"


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/models/m/v1/chat/completion", "/models/m/v1/chat/completions"),
        ("/models/team/m/v1/chat/compeltions", "/models/team/m/v1/chat/completions"),
        ("/models/m/predcit", "/models/m/predict"),
    ],
)
def test_a_slip_of_the_pen_behind_the_base_url_of_one_model_is_asked_about_too(path: str, right: str) -> None:
    assert meant(path, KNOWN) == f"; did you mean {right}?"
    with Served({"m": Model({"predict": lambda inputs: "fine"})}) as served:
        answer = served.post(path.replace("team/", ""), {})
        assert answer.status == 404 and f"did you mean {right.replace('team/', '')}?" in answer.body.decode()


@pytest.mark.parametrize("path", ["/predict", "/v1/predict"])
def test_a_predict_of_no_model_is_told_where_those_of_models_are(path: str) -> None:
    assert meant(path, KNOWN) == "; it is /v1/models/NAME:predict, with a name that GET /v1/models lists"


@pytest.mark.parametrize("path", ["/v1/models/m/predict", "/v1/models/m", "/v1/models/m/infer", "/v1/models/m:predcit"])
def test_a_post_beside_the_predict_of_a_model_names_it(path: str) -> None:
    with Served({"m": Model({"predict": lambda inputs: "fine"})}) as served:
        answer = served.post(path, {})
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
        assert "to call it: POST /v1/models/m:predict" in answer.body.decode()


@pytest.mark.parametrize(
    "path", ["/", "/rerank", "/nowhere", "/x/chat/completions", "/v1/chat", "/models/", "/v1/models"]
)
def test_what_is_near_nothing_gets_no_advice(path: str) -> None:
    assert meant(path, KNOWN) == ""


def test_both_kinds_of_unknown_paths_say_so() -> None:
    with Served({"m": Model({"chat_completions": lambda inputs: "fine"})}) as served:
        for path, right in (
            ("/chat/completions", "/v1/chat/completions"),
            ("/models/m/chat/completions", "/models/m/v1/chat/completions"),
        ):
            answer = served.post(path, {})
            assert answer.status == 404 and f"it is {right}" in answer.json["error"]["message"]


PATHS = (
    "/NAME",
    "/models/NAME",
    "/NAME/predict",
    "/v1/NAME/predict",
    "/predict/NAME",
    "/NAME:predict",
    "/models/NAME/x",
)


def test_a_path_that_names_a_model_is_told_how_that_is_called() -> None:
    predicts, chats = Model({"predict": lambda inputs: "fine"}), Model({"chat_completions": lambda inputs: "fine"})
    calls = {"m": "/v1/models/m:predict", "team/m": "/models/team/m/v1/chat/completions"}
    with Served({"m": predicts, "team/m": chats}) as served:
        for name, call in calls.items():
            for path in PATHS:
                answer = served.post(path.replace("NAME", name), {})
                assert answer.status == 404, path
                assert f"; model '{name}' is called with POST {call}\"" in answer.body.decode(), path


@pytest.mark.parametrize("path", ["/v1/models/m", "/v1/models/m/chat/completions", "/v1/models/m:chat"])
def test_a_post_beside_the_routes_of_a_model_names_the_first_that_it_has(path: str) -> None:
    with Served({"m": Model({"chat_completions": lambda inputs: "fine"})}) as served:
        assert "to call it: POST /models/m/v1/chat/completions" in served.post(path, {}).body.decode()
        assert "POST /v2/models/m/infer, or POST /models/m/v1/chat" in served.post("/v2/models/m/x", {}).body.decode()
        assert "POST /v1/models/NAME:predict, with a name" in served.post("/v1/models/n/chat", {}).body.decode()


def test_a_path_that_names_nothing_is_told_where_the_routes_are_and_a_hidden_model_is_nothing(tmp_path: Path) -> None:
    key, text = keys.create("bob", models=("other",))
    keys.write(tmp_path / "keys.toml", [key])
    with Served({"m": Model({"predict": lambda inputs: "fine"})}, keys_file=tmp_path / "keys.toml") as served:
        for path in ("/nowhere", "/generate", "/models/nothing/x", "/mm", "/m", "/models/m/x"):
            told = served.post(path, {}, x_api_key=text).body.decode()
            assert '; GET /v1/models lists the models and their routes"' in told, path
        assert "'m'" not in served.post("/v1/models/m", {}, x_api_key=text).body.decode()
