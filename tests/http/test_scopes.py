"""What keys of the file may do over HTTP: their models, their scopes, their limits."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Answer, Model, Served

from gateway.access import keys
from gateway.access.callers import SCOPES

Serve = Callable[..., Served]
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


class Doors:
    """A gateway with keys; `open(name)` is the header of one."""

    def __init__(self, serve: Serve, file: Path, *, models: dict[str, Model], **holders: dict[str, Any]) -> None:
        made = {name: keys.create(name, **limits) for name, limits in holders.items()}
        keys.write(file, [key for key, _ in made.values()])
        self.texts = {name: text for name, (_, text) in made.items()}
        self.served = serve(models, keys_file=file)

    def post(self, who: str, path: str, body: Any = None) -> Answer:
        return self.served.post(path, body, Authorization=f"Bearer {self.texts[who]}")

    def get(self, who: str, path: str) -> Answer:
        return self.served.get(path, x_api_key=self.texts[who])


def model() -> Model:
    return Model({"predict": lambda body: b"true", "chat_completions": lambda inputs: "fine"})


@pytest.fixture
def doors(serve: Serve, tmp_path: Path) -> Callable[..., Doors]:
    def make(models: dict[str, Model] | None = None, **holders: dict[str, Any]) -> Doors:
        return Doors(serve, tmp_path / "keys.toml", models=models or {"m": model()}, **holders)

    return make


@pytest.mark.parametrize(
    "path", ["/models/chat-b/predict", "/v1/models/chat-b:predict", "/models/chat-b/v1/chat/completions"]
)
def test_a_model_outside_a_keys_patterns_is_unknown_to_it(doors: Callable[..., Doors], path: str) -> None:
    all_of_it = doors({"chat-a": model(), "chat-b": model()}, alice={"models": ("chat-a",)}, bob={})
    assert all_of_it.post("bob", path, CHAT).status == 200
    refused = all_of_it.post("alice", path, CHAT)
    assert refused.status == 404
    assert "chat-b (have" not in refused.body.decode() and "chat-a" in refused.body.decode()


def test_a_key_lists_and_defaults_to_what_it_sees(doors: Callable[..., Doors]) -> None:
    all_of_it = doors({"chat-a": model(), "chat-b": model()}, alice={"models": ("chat-a",)}, bob={})
    assert [item["id"] for item in all_of_it.get("alice", "/v1/models").json["data"]] == ["chat-a"]
    assert all_of_it.get("alice", "/v1/models/chat-b").status == 404
    assert all_of_it.post("alice", "/v1/chat/completions", CHAT).status == 200  # the only one it can mean
    assert all_of_it.post("alice", "/v1/models/model:predict", {}).status == 200
    assert all_of_it.post("bob", "/v1/chat/completions", CHAT).status == 400


@pytest.mark.parametrize(
    ("path", "scope"), [("/metrics", "metrics"), ("/v1/models", "infer"), ("/models/none/hot-reload", "admin")]
)
def test_a_scope_opens_its_paths_only(doors: Callable[..., Doors], path: str, scope: str) -> None:
    all_of_it = doors(**{name: {"scopes": (name,)} for name in SCOPES})
    ask = all_of_it.post if path.endswith("reload") else all_of_it.get
    answers = {name: ask(name, path) for name in SCOPES}
    assert {name for name, answer in answers.items() if answer.status != 403} == {scope}
    for name in set(SCOPES) - {scope}:
        error = answers[name].json["error"]
        assert f"'{scope}'" in (error if isinstance(error, str) else error["message"])


def test_a_key_over_its_limit_hears_when_to_come_back_and_others_are_served(doors: Callable[..., Doors]) -> None:
    all_of_it = doors(alice={"rpm": 2}, bob={})
    for path in ("/models/m/predict", "/v1/chat/completions"):
        good = all_of_it.post("alice", path, CHAT)
        assert good.status == 200 and good.headers["x-ratelimit-limit-requests"] == "2"
    for path in ("/models/m/predict", "/v1/chat/completions"):
        refused = all_of_it.post("alice", path, CHAT)
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert all_of_it.post("bob", "/v1/chat/completions", CHAT).status == 200
    assert all_of_it.get("alice", "/v1/models/m/loaded").status == 200  # a look at one thing is no call


@pytest.mark.parametrize("path", ["/models/m/predict", "/v1/chat/completions"])
def test_calls_at_once_are_given_back_however_they_end(doors: Callable[..., Doors], path: str) -> None:
    async def fail(body: Any) -> Any:
        from gateway.errors import HTTPError

        raise HTTPError(503, "not now")

    all_of_it = doors({"m": Model({"predict": fail, "chat_completions": fail})}, alice={"max_inflight": 1})
    for _ in range(5):
        assert all_of_it.post("alice", path, CHAT).status == 503
        assert all_of_it.post("alice", "/models/none/predict", CHAT).status == 404


def test_an_expired_or_revoked_key_is_no_key(doors: Callable[..., Doors]) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    all_of_it = doors(alice={"expires": past}, bob={})
    assert all_of_it.get("alice", "/v1/models").status == 401
    file = all_of_it.served.settings.gateway.keys_file
    keys.write(file, keys.without(keys.read(file), "bob"))
    all_of_it.served.do(all_of_it.served.keys.reload())
    assert all_of_it.get("bob", "/v1/models").status == 401


def test_observers_and_logs_know_a_caller_by_the_id_of_its_key(doors: Callable[..., Doors]) -> None:
    all_of_it = doors(alice={})
    answer = all_of_it.post("alice", "/v1/chat/completions", CHAT)
    secret = all_of_it.texts["alice"].rpartition("_")[2]
    assert answer.status == 200 and secret not in answer.body.decode()
