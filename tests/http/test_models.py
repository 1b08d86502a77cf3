"""The list of models and one model, as both official SDKs and Truss's probes read them."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from served import PATIENCE, Model, Served

from gateway.access import keys
from gateway.runners.replica import LoadError
from gateway.settings.schema import ModelSettings

Serve = Callable[..., Served]


def fine(inputs: Any) -> Any:
    return b'"fine"'


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    models = {
        "chat": Model({"chat_completions": fine, "predict": fine}, capabilities={"max_model_len": 4096}),
        "org/embed-1.5": Model({"embeddings": fine}, display_name="Embedder"),
    }
    with Served(models) as served:
        yield served


def test_the_openai_sdk_lists_and_retrieves_models(gateway: Served) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0) as client:
        listed = list(client.models.list())
        assert [model.id for model in listed] == ["chat", "org/embed-1.5"]
        for model in listed:
            assert (model.object, model.owned_by) == ("model", "gateway")
            assert isinstance(model.created, int)
            one = client.models.retrieve(model.id)
            assert (one.id, one.created) == (model.id, model.created)
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("none")
        assert caught.value.code == "model_not_found" and caught.value.request_id


def test_the_anthropic_sdk_lists_and_retrieves_models(gateway: Served) -> None:
    with anthropic.Anthropic(
        base_url=gateway.url, api_key="unused", max_retries=0, _strict_response_validation=True
    ) as client:
        page = client.models.list()
        assert [model.id for model in page.data] == ["chat", "org/embed-1.5"]
        assert (page.has_more, page.first_id, page.last_id) == (False, "chat", "org/embed-1.5")
        assert [model.max_input_tokens for model in page.data] == [4096, None]
        for model in page.data:
            assert model.type == "model" and isinstance(model.created_at, datetime.datetime)
            assert model.capabilities is None  # ours are of another kind
            assert client.models.retrieve("chat").display_name == "chat"
        assert page.data[1].display_name == "Embedder"
        with pytest.raises(anthropic.NotFoundError) as caught:
            client.models.retrieve("none")
        assert caught.value.body == {
            "type": "error",
            "error": {"type": "not_found_error", "message": "no model named 'none' (have: chat, org/embed-1.5)"},
            "request_id": caught.value.request_id,
        }


def test_both_times_of_a_model_are_one_moment(gateway: Served) -> None:
    for model in gateway.get("/v1/models").json["data"]:
        moment = datetime.datetime.fromisoformat(model["created_at"])
        assert model["created_at"].endswith("Z") and moment.timestamp() == model["created"]


def test_a_model_says_what_it_serves_and_how_it_is(gateway: Served) -> None:
    chat, embed = gateway.get("/v1/models").json["data"]
    assert chat["capabilities"]["routes"] == ["/v1/models/chat:predict", "/v1/chat/completions"]
    assert (chat["status"], chat["max_model_len"], chat["lifecycle"]) == ("ready", 4096, "active")
    assert embed["capabilities"]["methods"] == ["embeddings"] and "max_model_len" not in embed


def test_an_unready_model_is_listed_and_its_own_page_is_503(serve: Serve) -> None:
    served = serve({"good": Model({"predict": fine}), "slow": Model({"predict": fine}, loads=[PATIENCE])})
    assert [model["status"] for model in served.get("/v1/models").json["data"]] == ["ready", "loading"]
    answer = served.get("/v1/models/slow")
    assert (answer.status, answer.error["code"]) == (503, "model_loading")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-baseten-error-source"] == "04"
    asked_by_anthropic = served.get("/v1/models/slow", anthropic_version="2023-06-01")
    assert asked_by_anthropic.json["error"]["type"] == "overloaded_error"
    assert served.get("/v1/models/good").status == 200
    assert served.get("/models/slow/status").status == 503


def test_a_failed_model_says_to_its_operator_why_and_to_others_who_knows(serve: Serve, tmp_path: Path) -> None:
    """What its code raised may hold anything: only admins see it, and everybody where `debug` is set."""
    made = [keys.create("alice"), keys.create("root", scopes=("infer", "admin"))]
    keys.write(tmp_path / "keys.toml", [key for key, _ in made])
    model = {"m": Model({"predict": fine}, loads=[LoadError("no weights for hunter2", fatal=True)])}
    served = serve(model, keys_file=tmp_path / "keys.toml")
    served.wait_until(lambda: served.hub.catalog.models["m"].state == "failed")
    (alice, root) = ({"Authorization": f"Bearer {text}"} for _, text in made)
    for path, is_told in (("/v1/models", "status_reason"), ("/v2/repository/index", "reason")):
        for given, expected in ((alice, "gateway ps shows why, on the machine of the gateway"), (root, "hunter2")):
            answer = served.post(path, {}, **given) if "index" in path else served.get(path, **given)
            entries = answer.json if "index" in path else answer.json["data"]
            assert expected in entries[0][is_told]
            assert ("hunter2" in answer.body.decode()) is (given is root), path
    page = served.get("/", Accept="text/html", **alice)
    assert "hunter2" not in page.body.decode()
    for given in (alice, root):
        assert "hunter2" not in served.get("/openapi.json", **given).body.decode()
        assert "hunter2" not in served.get("/metrics", **given).body.decode()


def test_where_debug_is_set_everybody_sees_why_a_model_failed(serve: Serve) -> None:
    served = serve({"m": Model({"predict": fine}, loads=[LoadError("no weights here", fatal=True)])}, debug=True)
    served.wait_until(lambda: served.hub.catalog.models["m"].state == "failed")
    [model] = served.get("/v1/models").json["data"]
    assert (model["status"], model["status_reason"]) == ("failed", "no weights here")
    answer = served.get("/v1/models/m")
    assert (answer.status, answer.error["code"], answer.headers["x-should-retry"]) == (503, "model_failed", "false")


@pytest.mark.parametrize(("says", "status"), [(True, 200), (None, 200), (False, 503)])
def test_readiness_asks_the_models_own_health_check(serve: Serve, says: Any, status: int) -> None:
    model = Model({"predict": fine, "is_healthy": lambda inputs: says}, capabilities={"has_health_check": True})
    served = serve({"m": model})
    assert served.get("/v1/models/m").status == status
    for path in ("/v1/models/m/loaded", "/ping"):
        assert served.get(path).status == 200, "they never ask it"
    assert served.post("/models/m/predict").status == 200


def test_what_a_model_says_of_its_health_is_seen_by_operators_and_in_the_metrics_without_a_probe(serve: Serve) -> None:
    says = [True]
    ill = Model({"predict": fine, "is_healthy": lambda inputs: says[-1]}, capabilities={"has_health_check": True})
    served = serve({"ill": ill, "plain": Model({"predict": fine})}, admin_http=True, api_key="k" * 20)

    def series() -> list[str]:
        text = served.get("/metrics", Authorization="Bearer " + "k" * 20).body.decode()
        return [line for line in text.splitlines() if line.startswith("gateway_model_healthy")]

    assert series() == ['gateway_model_healthy{model="ill"} 1.0']
    says.append(False)
    listed = json.loads(served.get("/admin/models", Authorization="Bearer " + "k" * 20).body)["models"]
    shown = {model["id"]: (model["state"], model["healthy"], model["reason"]) for model in listed}
    assert shown == {
        "ill": ("ready", False, "its is_healthy says False"),
        "plain": ("ready", None, ""),
    }
    assert series() == ['gateway_model_healthy{model="ill"} 0.0']


def test_no_key_is_told_of_directories_of_this_machine(serve: Serve) -> None:
    served = serve({"plain": Model({"predict": fine})}, admin_http=True, api_key="k" * 20)
    assert list(json.loads(served.get("/admin/models", Authorization="Bearer " + "k" * 20).body)) == ["models"]


def test_questions_about_models_take_no_slot(serve: Serve) -> None:
    async def forever(inputs: Any) -> Any:
        await asyncio.Event().wait()

    served = serve({"m": Model({"predict": forever}, limits={"slots": 1, "max_queue": 0})})
    served.keep_busy("m")
    assert served.post("/models/m/predict").status == 429
    for path in ("/v1/models", "/v1/models/m", "/v1/models/m/loaded", "/livez", "/readyz", "/metrics", "/ping"):
        assert served.get(path).status == 200


def test_schemas_are_shown_as_the_model_gave_them(serve: Serve) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    capabilities = {"input_schema": schema, "output_schema": None, "supports_streaming": False}
    served = serve({"m": Model({"predict": fine}, capabilities=capabilities), "untyped": Model({"predict": fine})})
    assert served.get("/v1/models/m/schema").json == capabilities
    answer = served.get("/v1/models/untyped/schema")
    assert (answer.status, answer.json) == (404, {"error": "No schema found"})
    assert answer.headers["x-baseten-error-code"] == "600"


def test_an_alias_means_its_model(serve: Serve) -> None:
    served = serve({"m": Model({"predict": fine}), "n": Model({"predict": fine})}, aliases={"gpt-4": "m"})
    assert served.get("/v1/models/gpt-4").json["id"] == "m"
    assert served.post("/models/gpt-4/predict").status == 200


def test_a_model_that_is_not_loaded_says_whether_its_next_call_loads_it(serve: Serve) -> None:
    tables = {"lazy": ModelSettings(load="lazy")}
    served = serve({"lazy": Model({"predict": fine}), "eager": Model({"predict": fine})}, tables=tables)
    served.do(served.hub.unload(served.hub.catalog.models["eager"]))
    of = {name: served.get(f"/v1/models/{name}").json for name in ("lazy", "eager")}
    assert (of["lazy"]["status"], of["lazy"]["loads_on_demand"]) == ("unloaded", True)
    assert (of["eager"]["status"], of["eager"]["loads_on_demand"]) == ("unloaded", False)
    answer = served.post("/models/eager/predict", {})
    assert answer.status == 503 and "`gateway load eager` loads it" in answer.json["error"]
