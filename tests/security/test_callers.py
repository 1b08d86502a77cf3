"""T35 to T38: what one caller gets to know of the others' models, and does to other callers."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import datetime
import http.client
import importlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from litestar import Request, get, post
from litestar.response import Stream
from served import PATIENCE, Answer, Model, Reply, Served, certificate
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from gateway import Caller, hookimpl
from gateway.access import keys
from gateway.access.callers import SCOPES
from gateway.access.permits import Permits
from gateway.hosting import reload
from gateway.http.off_loop import Beside
from gateway.http.route_table import ROUTES
from gateway.plugins import BUILTINS
from gateway.runners.replica import LoadError

Serve = Callable[..., Served]
ROOT = Path(__file__).resolve().parents[2]
DIALECTS = [
    importlib.import_module(module)
    for name, module in BUILTINS.items()
    if module.startswith("gateway.dialects.") and name not in ("openai_chat", "openai_embeddings")  # are served anyway
]
MINE, HIDDEN, TYPED, ABSENT = "mine", "zz-other", "org/zz-typed", "zz-never"
NOT_MINE = (HIDDEN, TYPED, "zz-broken", ABSENT)
MARKS = ("zz-", "zz_", "Zz", "7654321", "org/", "Org")  # of names, schemas and numbers of the models that are not mine
SCHEMA = {"type": "object", "title": "ZzInput", "properties": {"zz_field": {"type": "integer"}}}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


def plugin(name: str, **hooks: Callable[..., Any]) -> ModuleType:
    module = ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, hookimpl(function))
    return module


def fine(**spec: Any) -> Model:
    methods = ("chat_completions", "embeddings", "predict", "responses")
    return Model({name: lambda inputs: b"true" if isinstance(inputs, bytes) else "fine" for name in methods}, **spec)


def models() -> dict[str, Model]:
    big = {"max_body": 7654321 * 16}
    told = {"input_schema": SCHEMA, "output_schema": SCHEMA, "max_model_len": 7654321}
    fails = LoadError("zz-broken: no room beside zz-other", fatal=True)
    return {
        MINE: fine(limits={"max_body": 1 << 20}),
        HIDDEN: fine(limits=big, display_name="Zz", capabilities=told),
        TYPED: Model({"predict": lambda body: b"true"}, capabilities=told),
        "zz-broken": Model({"predict": lambda body: b"true"}, loads=[fails], limits=big),
    }


class Scoped:
    """A gateway with a key that sees one model and has every scope, and one that sees all."""

    def __init__(self, serve: Serve, place: Path, **options: Any) -> None:
        self.key, self.text = keys.create("scoped", models=(MINE,), scopes=SCOPES)
        every, self.every = keys.create("every", scopes=SCOPES)
        keys.write(place / "keys.toml", [self.key, every])
        options = {"keys_file": place / "keys.toml", "admin_http": True, "plugins": DIALECTS, **options}
        self.served = serve(models(), **options)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return self.served.ask(method, path, body, x_api_key=self.text, x_request_id="r", **headers)


@pytest.fixture
def scoped(serve: Serve, tmp_path: Path) -> Scoped:
    found = Scoped(serve, tmp_path)
    served, known = found.served, {"x_api_key": found.every}
    for name in (MINE, HIDDEN):  # so that there are numbers to be seen
        assert served.post(f"/models/{name}/predict", {}, **known).status == 200
        assert served.post("/v1/chat/completions", {"model": name, **CHAT}, **known).status == 200
        assert served.post("/v1/chat/completions", {"model": name, "stream": True, **CHAT}, **known).status == 200
    served.hub.tails.add(HIDDEN, "zz-line of another's log")
    return found


def told(answer: Answer) -> str:
    """All that a client sees of an answer, but for what differs from one request to the next."""
    own = ("x-request-id", "request-id", "date", "server-timing", "content-length")
    head = "".join(f"{name}: {value}\n" for name, value in sorted(answer.pairs) if name.lower() not in own)
    return f"{answer.status}\n{head}{answer.body.decode('utf-8', 'replace')}"


# Routes that the API document leaves out.
UNLISTED = (
    "GET /openapi.json",
    "GET /admin/models",
    "GET /admin/logs",
    "POST /admin/models/{model}/load",
    "POST /admin/models/{model}/unload",
    "POST /admin/models/{model}/reload",
    "GET /models/{model}/logs",
    "POST /models/{model}/hot-reload",
    "POST /hot-reload",
    "GET /models/{model}/ping",
    "POST /models/{model}/invocations",
    "POST /v1/models/{model}:predict_binary",
    "GET /models/{model}/v1/models/{model}",
    "GET /v2/models/{model}/versions/1",
    "GET /docs",
    "GET /docs/start.js",
)


def routes(scoped: Scoped) -> Iterator[tuple[str, str]]:
    """Every route of the API document as an operator sees it, and those that are not in it."""
    document = scoped.served.get("/openapi.json", x_api_key=scoped.every).json
    for path, verbs in document["paths"].items():
        yield from ((verb.upper(), path) for verb in verbs)
    for route in UNLISTED:
        method, path = route.split()
        yield method, path


def requests(method: str, path: str) -> Iterator[tuple[str, Any, dict[str, str]]]:
    """Ways to ask a route: by every name, with and without a body, as programs, browsers and Anthropic's SDK do."""
    names = (*NOT_MINE, MINE) if "{model}" in path else ("",)
    bodies: tuple[Any, ...] = (None,)
    heads: tuple[dict[str, str], ...] = ({}, {"Accept": "text/html"}, {"anthropic-version": "2023-06-01"})
    if method == "POST":
        heads = ({},)
        bodies = (b"", b"[", {}, {"ready": False}, {**CHAT, "input": "x"}, {"model": HIDDEN, **CHAT, "input": "x"})
    for name, body, head in itertools.product(names, bodies, heads):
        yield path.replace("{model}", name).replace("{response}", "resp_0"), body, head


def test_no_route_tells_a_scoped_key_anything_of_other_models(scoped: Scoped) -> None:
    asked = 0
    for method, path in routes(scoped):
        if path.endswith(("/unload", "/hot-reload", "/load", "/reload")) and "{model}" not in path:
            continue  # of the only model that the key sees; it may
        answers: dict[str, list[str]] = {}
        for where, body, head in requests(method, path):
            if f"/{MINE}/" in where and where.endswith(("/unload", "/hot-reload", "/load", "/reload")):
                continue
            said = told(scoped.ask(method, where, body, **head))
            by_name = next((name for name in NOT_MINE if name in where), "")
            for name in NOT_MINE:  # what it was asked for it may repeat
                for echo in (f"named '{name}'", f"/{name}", f'"model":"{name}"', f'"model_name":"{name}"'):
                    said = said.replace(echo, echo.replace(name, "X"))
            assert not [mark for mark in MARKS if mark in said], f"{method} {where} {body!r}: {said}"
            answers.setdefault(by_name, []).append(said)
            asked += 1
        for name in NOT_MINE if "{model}" in path else ():  # is no different from a model that is not there
            assert answers.get(name) == answers.get(ABSENT), f"{method} {path}"
    assert asked > 500
    assert scoped.served.hub.catalog.models[HIDDEN].state == scoped.served.hub.catalog.models[TYPED].state == "ready"
    assert scoped.ask("GET", "/admin/models").json["models"][0]["id"] == MINE


def test_the_walk_sees_what_an_operator_is_told(scoped: Scoped) -> None:
    """Or it would find nothing whatever the gateway said."""
    known = {"x_api_key": scoped.every}
    for path in (
        "/openapi.json",
        "/metrics",
        "/admin/models",
        "/admin/logs",
        "/readyz",
        "/v1/models",
        "/v2/models/stats",
        "/docs/examples",
    ):
        assert "zz-" in told(scoped.served.get(path, **known)), path
    assert "zz_field" in told(scoped.served.get("/openapi.json", **known))
    assert "7654321" in told(scoped.served.get("/v1/models", **known))


def test_a_limit_in_an_error_is_that_of_a_model_of_ones_own(scoped: Scoped) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-api-key: {scoped.text}\r\n"
    said = scoped.served.send(f"{head}content-length: 999999999\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 413 ") and str(1 << 20).encode() in said
    assert b"122469136" not in said


def test_without_a_key_health_names_no_model(scoped: Scoped) -> None:
    for path in ("/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready", "/ping", "/"):
        for head in ({}, {"x_api_key": "gw_wrong"}):
            said = told(scoped.served.get(path, **head))
            assert not [mark for mark in (*MARKS, MINE) if mark in said], f"{path}: {said}"
    assert scoped.ask("GET", "/readyz").json["models"] == {MINE: "ready"}


def test_a_probe_of_a_sole_model_that_is_not_ready_does_not_say_its_name(serve: Serve) -> None:
    failing = Model({"predict": lambda body: b"true"}, loads=[LoadError("no", fatal=True)])
    for options, names in (({"api_key": "k"}, False), ({}, True)):
        served = serve({"zz-only": failing}, **options)
        served.wait_until(lambda served=served: served.hub.catalog.models["zz-only"].state == "failed")  # type: ignore[misc]
        answer = served.get("/ping")
        assert answer.status == 503 and (b"zz-only" in answer.body) is names
        failing.loads.append(LoadError("no", fatal=True))


def test_an_operator_with_patterns_operates_the_models_that_it_sees(
    scoped: Scoped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.hosting.reload.read_again", lambda _, model: model.spec)  # these have no directories
    assert scoped.ask("POST", f"/admin/models/{MINE}/unload").json["state"] == "unloaded"
    assert scoped.ask("POST", f"/admin/models/{MINE}/load").json["state"] == "ready"
    assert scoped.ask("GET", f"/models/{MINE}/logs").json["model"] == MINE
    assert scoped.ask("GET", f"/models/{MINE}/logs?lines={'9' * 5000}").status == 400
    for order in ("unload", "load", "reload"):
        assert scoped.ask("POST", f"/admin/models/{HIDDEN}/{order}").status == 404
    assert scoped.ask("GET", f"/models/{HIDDEN}/logs").status == 404
    assert scoped.served.hub.catalog.models[HIDDEN].state == "ready"


def test_no_order_of_an_operator_with_patterns_hosts_a_model_that_it_does_not_see(
    scoped: Scoped, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, name = scoped.served.hub, "zz-new"
    scoped.served.models[name] = fine()
    there = [model.spec for model in hub.catalog.models.values()]
    found = (*there, replace(hub.catalog.models[HIDDEN].spec, name=name))
    monkeypatch.setattr("gateway.hosting.model_roots._search", lambda hub: (found, ()))
    monkeypatch.setattr("gateway.hosting.reload.read_again", lambda _, model: model.spec)
    orders = [f"/admin/models/{one}/{order}" for one in (name, MINE, ABSENT) for order in ("load", "reload", "unload")]
    for path in ("/admin/reload", *orders, f"/v2/repository/models/{name}/load"):
        said = told(scoped.ask("POST", path))
        assert name not in hub.catalog.models and (name in path or name not in said), path
    assert scoped.served.post("/admin/reload", x_api_key=scoped.every).json["new"] == [name]


def test_who_holds_the_devices_is_told_to_those_who_see_every_model(scoped: Scoped) -> None:
    hub = scoped.served.hub
    text = "mine/0 does not fit now: GPU-0: held by zz-other/0 (76GiB)"

    async def lose_its_place() -> None:
        await hub.unload(hub.catalog.models[MINE])
        hub.catalog.models[MINE].fail(text)

    scoped.served.do(lose_its_place())
    paths = ("/admin/models", f"/v1/models/{MINE}", "/v1/models", "/v2/models/stats")
    said = "".join(told(scoped.ask("GET", path)) for path in paths)
    said += told(scoped.ask("POST", "/v2/repository/index")) + told(scoped.ask("GET", "/", Accept="text/html"))
    assert "zz-" not in said and "76GiB" not in said and "no device has room for it" in said
    assert text in told(scoped.served.get("/admin/models", x_api_key=scoped.every))
    lines = told(scoped.ask("GET", f"/models/{MINE}/logs")) + told(scoped.ask("GET", "/admin/logs"))
    assert "zz-" not in lines and "failed: no device has room for it" in lines


def test_who_holds_the_devices_that_a_reload_lacks_is_told_to_those_who_see_every_model(
    scoped: Scoped, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def finds_no_room(hub: Any, model: Any) -> None:
        raise reload.NoRoom("mine/0 does not fit now: GPU-0: held by zz-other/0 (76GiB)")

    monkeypatch.setattr(reload, "_reload", finds_no_room)
    hub = scoped.served.hub
    with pytest.raises(LoadError, match="zz-other"):
        scoped.served.do(reload.reload(hub, hub.catalog.models[MINE]))
    paths = ("/admin/models", f"/v1/models/{MINE}", f"/models/{MINE}/logs", "/admin/logs")
    said = "".join(told(scoped.ask("GET", path)) for path in paths)
    said += told(scoped.ask("POST", f"/admin/models/{MINE}/reload"))
    assert "zz-" not in said and "76GiB" not in said and said.count("no device has room for it") >= 3
    seen = told(scoped.served.get("/admin/models", x_api_key=scoped.every))
    assert "no device has room for it: mine/0 does not fit now: GPU-0: held by zz-other/0" in seen


def test_what_a_key_has_stored_is_not_that_of_another_key_under_its_id(serve: Serve, tmp_path: Path) -> None:
    holders = Holders(serve, tmp_path, {MINE: fine()}, plugins=DIALECTS)
    served = holders.served
    stored = served.post("/v1/responses", {"input": "secret"}, x_api_key=holders.text).json["id"]
    follower, second = keys.successor(holders.key)
    last, third = keys.successor(follower)
    holders.change(holders.key, follower, last)
    for text in (holders.text, second, third):
        assert served.get(f"/v1/responses/{stored}", x_api_key=text).status == 200
    holders.change(last)
    assert served.get(f"/v1/responses/{stored}", x_api_key=third).status == 200
    other = f"gw_{holders.key.id}_{'A' * 43}"
    holders.change(replace(holders.key, digest=keys.digest_of(other.encode())), last)
    assert served.get("/v1/models", x_api_key=other).status == 200
    for path in (f"/v1/responses/{stored}", f"/v1/responses/{stored}/input_items"):
        assert served.get(path, x_api_key=other).status == 404
    assert served.get(f"/v1/responses/{stored}", x_api_key=third).status == 200


def test_a_route_of_a_plugin_can_ask_which_models_its_caller_sees(serve: Serve, tmp_path: Path) -> None:
    @get("/plugged", sync_to_thread=False)
    def plugged(request: Request[Any, Any, Any]) -> list[str]:
        return [name for name in (MINE, HIDDEN) if request.scope["gateway.sees"](name)]

    extra = plugin("extra", configure_app=lambda config: config.route_handlers.append(plugged))
    scoped = Scoped(serve, tmp_path, plugins=[*DIALECTS, extra])
    assert scoped.ask("GET", "/plugged").json == [MINE]
    assert scoped.served.get("/plugged", x_api_key=scoped.every).json == [MINE, HIDDEN]


def test_a_request_for_a_model_that_a_key_does_not_see_counts_for_nobody(serve: Serve, tmp_path: Path) -> None:
    scoped = Scoped(serve, tmp_path)
    limited, text = keys.create("limited", models=(MINE,), rpm=1)
    keys.write(tmp_path / "keys.toml", [*keys.read(tmp_path / "keys.toml"), limited])
    scoped.served.do(scoped.served.keys.reload())
    ways = ["/models/{}/predict", "/v1/models/{}:predict", "/models/{}/v1/chat/completions", "/v2/models/{}/infer"]
    for name in (HIDDEN, MINE):
        for path in ways:
            scoped.ask("POST", path.format(name), {})
        for _ in range(2):
            assert scoped.served.post(f"/models/{name}/predict", {}, x_api_key=text).status in (200, 404, 429)
    counted = scoped.served.get("/metrics", x_api_key=scoped.every).body.decode()
    lines = [line for line in counted.splitlines() if "gateway_requests_total" in line or "gateway_rejections" in line]
    assert any(f'model="{MINE}"' in line for line in lines) and not any(HIDDEN in line for line in lines)


@pytest.mark.parametrize("ending", ["schema", "loaded"])
def test_a_model_named_as_a_page_of_another_is_not_found_out(serve: Serve, tmp_path: Path, ending: str) -> None:
    key, text = keys.create("scoped", models=(MINE,))
    keys.write(tmp_path / "keys.toml", [key])
    named = fine(capabilities={"input_schema": SCHEMA})
    answers = []
    for also in ({}, {f"{MINE}/{ending}": fine(), f"zz/{ending}": fine()}):
        served = serve({MINE: named, **also}, keys_file=tmp_path / "keys.toml")
        paths = (f"/v1/models/{MINE}/{ending}", f"/v1/models/zz/{ending}")
        answers.append([told(served.get(path, x_api_key=text, x_request_id="r")) for path in paths])
    assert answers[0] == answers[1] and answers[0][0].startswith("200")


def test_what_another_model_answered_earlier_is_not_listed_when_the_key_has_lost_it(
    serve: Serve, tmp_path: Path
) -> None:
    methods = {"responses": lambda inputs: "zz-answer" if "zz-question" in str(inputs) else "fine"}
    holders = Holders(serve, tmp_path, {MINE: Model(methods), HIDDEN: Model(methods)}, plugins=DIALECTS)
    known = {"x_api_key": holders.text}
    first = holders.served.post("/v1/responses", {"model": HIDDEN, "input": "zz-question"}, **known).json["id"]
    then = {"model": MINE, "input": "mine", "previous_response_id": first}
    path = f"/v1/responses/{holders.served.post('/v1/responses', then, **known).json['id']}/input_items"
    assert "zz-question" in holders.served.get(path, **known).body.decode()
    holders.change(replace(holders.key, models=(MINE,)))
    left = holders.served.get(path, **known)
    assert left.status == 200 and "mine" in left.body.decode() and "zz-" not in left.body.decode()


def test_routes_come_to_models_through_the_filter_alone() -> None:
    """Those below count or look a name up, and tell nobody."""
    may = {
        "http/self_calls.py",
        "http/metrics/requests.py",
        "http/routing.py",
        "http/routes/strict_parity.py",
        "http/routes/admin.py",
    }
    found = set()
    for file in (ROOT / "gateway/http").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "models" and "hub" in ast.unparse(node.value):
                found.add(file.relative_to(ROOT / "gateway").as_posix())
    assert found <= may


# ── callers of a plugin ──────────────────────────────────────────────────────────────────────────────────────────────

SCOPED_PATHS = {
    "infer": [("GET", "/v1/models"), ("POST", f"/models/{MINE}/predict"), ("GET", "/openapi.json")],
    "metrics": [("GET", "/metrics"), ("GET", "/metrics/")],
    "admin": [
        ("GET", "/admin/models"),
        ("POST", f"/admin/models/{MINE}/unload"),
        ("POST", f"/models/{MINE}/hot-reload"),
        ("POST", "/hot-reload"),
        ("GET", f"/models/{MINE}/logs"),
        ("POST", f"/v2/repository/models/{MINE}/load"),
        ("POST", f"/v2/repository/models/{MINE}/unload"),
    ],
}


def people(**said: Any) -> ModuleType:
    """A plugin that knows callers by the header x-who."""

    def authorize(scope: Mapping[str, Any]) -> Any:
        who = dict(scope["headers"]).get(b"x-who", b"").decode()
        return said[who]() if callable(said.get(who)) else said.get(who)

    return plugin("people", authorize=authorize)


def test_a_plain_name_means_inference_and_a_caller_the_scopes_that_it_has(serve: Serve) -> None:
    said = {"ada": "ada", **{scope: Caller(scope, scopes=(scope,)) for scope in SCOPES}}
    served = serve({MINE: fine()}, plugins=[people(**said)], api_key="k", admin_http=True)
    for who, may in (("ada", "infer"), *((scope, scope) for scope in SCOPES)):
        for scope, paths in SCOPED_PATHS.items():
            for method, path in paths:
                status = served.ask(method, path, None if method == "GET" else b"{}", x_who=who).status
                assert (status != 403) is (scope == may), f"{who} {method} {path} is {status}"
    assert served.get("/v1/models", x_who="nobody").status == 401


def test_no_spelling_of_a_path_needs_a_lesser_scope(serve: Serve) -> None:
    served = serve({MINE: fine()}, plugins=[people(ada="ada")], api_key="k", admin_http=True)
    for scope in ("metrics", "admin"):
        for method, path in SCOPED_PATHS[scope]:
            for spelled in ("/" + path, path + "/", path.upper(), "/." + path, path.replace("/", "//"), "/x/.." + path):
                answer = served.ask(method, spelled, None if method == "GET" else b"{}", x_who="ada")
                assert answer.status in (400, 403, 404, 405), f"{method} {spelled} is {answer.status}"


def test_a_plugins_caller_sees_its_models_and_no_others(serve: Serve, tmp_path: Path) -> None:
    said = people(ada=Caller("ada", scopes=SCOPES, models=[MINE]), eve=Caller("eve", models=()))  # type: ignore[arg-type]
    scoped = Scoped(serve, tmp_path, plugins=[*DIALECTS, said])
    for path in ("/v1/models", "/openapi.json", "/metrics", "/admin/models", "/v2/models/stats"):
        answer = told(scoped.served.get(path, x_who="ada"))
        assert MINE in answer and "zz-" not in answer, path
    assert scoped.served.post(f"/models/{HIDDEN}/predict", {}, x_who="ada").status == 404
    assert scoped.served.get("/v1/models", x_who="eve").json["data"] == []


def test_a_plugins_caller_has_its_limits_by_name(serve: Serve) -> None:
    said = people(ada=lambda: Caller("ada", rpm=2), again=lambda: Caller("ada", rpm=2), bob="bob")
    served = serve({MINE: fine()}, plugins=[said])
    first = served.post(f"/models/{MINE}/predict", {}, x_who="ada")
    assert first.status == 200 and first.headers["x-ratelimit-remaining-requests"] == "1"
    assert served.post(f"/models/{MINE}/predict", {}, x_who="again").status == 200
    assert served.post("/v1/chat/completions", CHAT, x_who="ada").status == 429
    assert served.post(f"/models/{MINE}/predict", {}, x_who="bob").status == 200


@pytest.mark.parametrize(
    ("name", "status"),
    [("\ud800", 500), ("ada\udfff", 500), ("x" * 1025, 500), ("ada\n\x00", 200), ("\u202eada", 200), ("x" * 1024, 200)],
)
def test_no_name_of_a_plugins_caller_breaks_what_others_see(serve: Serve, name: str, status: int) -> None:
    """It may be what the client says of itself in JSON, which has escapes for half a character."""
    said = people(odd=name, ops=Caller("ops", scopes=("metrics",)))
    served = serve({MINE: fine()}, plugins=[*DIALECTS, said], api_key="k")
    for path, body in ((f"/models/{MINE}/predict", {}), ("/v1/responses", {"model": MINE, "input": "hi"})):
        assert served.post(path, body, x_who="odd").status == status
    scrape = served.get("/metrics", x_who="ops")
    assert scrape.status == 200 and "gateway_key_requests_total" in scrape.body.decode()


def test_a_plugins_caller_that_has_expired_is_refused(serve: Serve) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    served = serve({MINE: fine()}, plugins=[people(ada=Caller("ada", expires=past))])
    assert served.post(f"/models/{MINE}/predict", {}, x_who="ada").status == 401


@pytest.mark.parametrize(
    "said",
    [
        lambda: Caller("ada", models="chat-*"),  # type: ignore[arg-type]  # whose letters would be patterns, "*" too
        lambda: Caller("ada", scopes="admin"),  # type: ignore[arg-type]
        lambda: Caller("ada", scopes=("everything",)),
        lambda: Caller("ada", rpm=0),
        lambda: Caller("ada", rpm=True),
        lambda: Caller("ada", max_inflight=-1),
        lambda: Caller("ada", models=(1,)),  # type: ignore[arg-type]
        lambda: Caller("ada", expires=datetime.datetime(2999, 1, 1)),
        lambda: Caller(""),
        lambda: "",
        lambda: True,
        lambda: 7,
        lambda: {"name": "ada", "scopes": ["admin"]},
    ],
)
def test_what_makes_no_sense_as_a_caller_lets_nobody_in(serve: Serve, said: Callable[[], Any]) -> None:
    served = serve({MINE: fine()}, plugins=[people(ada=said)], api_key="k")
    assert served.post(f"/models/{MINE}/predict", {}, x_who="ada").status == 500
    assert served.hub.plugins.problems


# ── the end of a key, and what counts ────────────────────────────────────────────────────────────────────────────────


async def endless(inputs: Any) -> Any:
    return ticks()


async def ticks() -> Any:
    while True:
        yield "tick "
        await asyncio.sleep(0.01)


async def never(inputs: Any) -> Any:
    await asyncio.Event().wait()


class Holders:
    """A gateway with keys in a file, which a test changes."""

    def __init__(self, serve: Serve, place: Path, models: dict[str, Model], **options: Any) -> None:
        self.file = place / "keys.toml"
        self.key, self.text = keys.create("ada", **options.pop("limits", {}))
        self.other, self.others = keys.create("grace")
        keys.write(self.file, [self.key, self.other])
        self.served = serve(models, keys_file=self.file, **options)

    @property
    def permits(self) -> Permits:
        """What runs for the key."""
        found = self.served.keys.find(self.text.encode(), datetime.datetime.now(datetime.UTC))
        assert found is not None
        return found

    def change(self, *left: keys.Key) -> None:
        keys.write(self.file, [*left, self.other])
        self.served.do(self.served.keys.reload())

    def begin(self, path: str, body: Any, text: str | None = None) -> http.client.HTTPConnection:
        """A request that is being answered."""
        connection = self.served.connect()
        connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {text or self.text}"})
        assert self.served.models[MINE].begun.acquire(timeout=PATIENCE)
        return connection


STREAMS = {
    "/v1/chat/completions": {"stream": True, **CHAT},
    f"/models/{MINE}/predict": {},
    "/v1/responses": {"stream": True, "input": "x"},
}


def streaming() -> Model:
    return Model({"chat_completions": endless, "predict": lambda body: raw_ticks(), "responses": endless})


async def raw_ticks() -> Any:
    async for tick in ticks():
        yield tick.encode()


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("way", ["revoked", "replaced", "narrowed", "demoted", "expired"])
def test_a_stream_ends_with_its_key_and_does_not_look_finished(
    serve: Serve, tmp_path: Path, path: str, way: str
) -> None:
    holders = Holders(serve, tmp_path, {MINE: streaming()}, plugins=DIALECTS)
    with contextlib.ExitStack() as stack:
        mine, others = (
            stack.enter_context(contextlib.closing(holders.begin(path, STREAMS[path], text)))
            for text in (holders.text, holders.others)
        )
        answer, other = mine.getresponse(), others.getresponse()
        assert answer.status == other.status == 200 and answer.read(1) and other.read(1)
        now = datetime.datetime.now(datetime.UTC)
        changed = {
            "revoked": (),
            "replaced": (replace(holders.key, digest="0" * 64),),
            "narrowed": (replace(holders.key, models=("none",)),),
            "demoted": (replace(holders.key, scopes=("metrics",)),),
            "expired": (replace(holders.key, expires=now + datetime.timedelta(seconds=0.1)),),
        }
        holders.change(*changed[way])
        rest = b""
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):  # where a stream has no frames
            while part := answer.read1():
                rest += part
        assert b"[DONE]" not in rest and b"response.completed" not in rest
        if path != f"/models/{MINE}/predict":
            assert b"any more" in rest or b"while this ran" in rest
        assert holders.served.models[MINE].stopped.acquire(timeout=PATIENCE)
        assert other.read(1)  # the other key's goes on


@pytest.mark.parametrize("way", ["narrowed", "demoted"])
@pytest.mark.parametrize("path", [f"/models/{MINE}/logs", "/admin/logs"])
def test_nothing_of_a_log_comes_that_its_key_may_not_see_any_more(
    serve: Serve, tmp_path: Path, path: str, way: str
) -> None:
    holders = Holders(serve, tmp_path, {MINE: fine(), HIDDEN: fine()}, limits={"scopes": SCOPES}, admin_http=True)
    tails = holders.served.hub.tails
    changed = {"narrowed": {"models": (HIDDEN,)}, "demoted": {"scopes": ("infer", "metrics")}}[way]
    with contextlib.closing(holders.served.connect()) as connection:
        headers = {"Authorization": f"Bearer {holders.text}"}
        connection.request("GET", f"{path}?follow=true&lines=0", headers=headers)
        answer = connection.getresponse()
        holders.served.do(lambda: tails.add(MINE, "before"))
        assert answer.status == 200 and b"before" in answer.readline()
        holders.change(replace(holders.key, **changed))
        holders.served.do(lambda: tails.add(MINE, "after"))
        holders.served.do(lambda: tails.add(HIDDEN, "another"))
        if (path, way) == ("/admin/logs", "narrowed"):
            assert b"another" in answer.readline()
        else:
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                answer.read()


def test_calls_that_wait_or_run_end_with_their_key_too(serve: Serve, tmp_path: Path) -> None:
    holders = Holders(serve, tmp_path, {MINE: Model({"predict": never}, limits={"slots": 1})})
    with contextlib.closing(holders.begin(f"/models/{MINE}/predict", {})) as runs:
        waits = holders.served.connect()
        waits.request("POST", f"/models/{MINE}/predict", b"{}", {"Authorization": f"Bearer {holders.text}"})
        holders.served.wait_until(lambda: holders.served.hub.catalog.models[MINE].limiter.queued == 1)
        holders.change()
        for connection in (runs, waits):
            assert connection.getresponse().status == 401
        waits.close()


def test_a_body_that_comes_after_its_key_has_gone_starts_nothing(serve: Serve, tmp_path: Path) -> None:
    holders = Holders(serve, tmp_path, {MINE: streaming()})
    model = holders.served.models[MINE]
    body = json.dumps(STREAMS["/v1/chat/completions"]).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-api-key: {holders.text}\r\n"
    with socket.create_connection(("127.0.0.1", holders.served.port), timeout=PATIENCE) as sock:
        sock.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode())
        permits = holders.served.keys.find(holders.text.encode(), datetime.datetime.now(datetime.UTC))
        assert permits is not None
        holders.served.wait_until(lambda: permits.running == 1)
        holders.change()
        sock.sendall(body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert not model.calls


def test_a_stream_ends_when_a_plugins_caller_expires(serve: Serve) -> None:
    def ada() -> Caller:  # half a second from when the request comes
        return Caller("ada", expires=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=0.5))

    served = serve({MINE: streaming()}, plugins=[people(ada=ada)])
    answer = served.post("/v1/chat/completions", STREAMS["/v1/chat/completions"], x_who="ada")
    assert answer.status == 200 and b"it expired while this ran" in answer.body


@pytest.mark.parametrize("left", [(), ("metrics", "admin")])
@pytest.mark.parametrize("path", ["/feed", "/feed/logs"])
def test_a_plugins_own_stream_is_broken_off_when_its_key_is_revoked_or_loses_the_scope(
    serve: Serve, tmp_path: Path, path: str, left: tuple[str, ...]
) -> None:
    begun = threading.Event()

    async def chunks() -> Any:
        yield b"first"
        begun.set()
        await asyncio.Event().wait()

    @get(path, sync_to_thread=False)
    def feed() -> Stream:
        return Stream(chunks())

    extra = plugin("extra", configure_app=lambda config: config.route_handlers.append(feed))
    holders = Holders(serve, tmp_path, {MINE: fine()}, plugins=[extra], limits={"scopes": SCOPES})
    with contextlib.closing(holders.served.connect()) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {holders.text}"})
        assert begun.wait(PATIENCE)
        holders.change(*([replace(holders.key, scopes=left)] if left else []))
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            connection.getresponse().read()


def test_an_order_whose_key_has_gone_is_not_answered_and_counts_for_no_limit(serve: Serve, tmp_path: Path) -> None:
    go = asyncio.Event()
    model = Model({"predict": never, "is_healthy": lambda inputs: go.wait()}, capabilities={"has_health_check": True})
    holders = Holders(serve, tmp_path, {MINE: model}, limits={"scopes": SCOPES, "rpm": 1}, admin_http=True)
    known = {"Authorization": f"Bearer {holders.text}"}
    for _ in range(3):
        assert holders.served.ask("GET", "/admin/models", **known).status == 200
    with contextlib.closing(holders.served.connect()) as asks:
        asks.request("GET", f"/v1/models/{MINE}", headers=known)
        assert model.begun.acquire(timeout=PATIENCE)
        holders.change()
        holders.served.do(go.set)
        assert asks.getresponse().status == 401


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("path", [f"/models/{MINE}/predict", f"/models/{MINE}/v1/chat/completions"])
def test_an_answer_that_its_client_does_not_take_is_one_of_those_at_once(
    serve: Serve, tmp_path: Path, path: str, encrypted: bool
) -> None:
    """Else one key has the gateway hold as many as it likes."""
    size = 1 << 25
    sizes = iter([size, 1, size, 1])
    answer = {"predict": lambda body: b'"%b"' % (b"x" * next(sizes)), "chat_completions": lambda i: "x" * next(sizes)}
    tls = certificate(tmp_path) if encrypted else {}
    holders = Holders(serve, tmp_path, {MINE: Model(answer)}, limits={"max_inflight": 1}, **tls)
    permits = holders.served.keys.find(holders.text.encode(), datetime.datetime.now(datetime.UTC))
    assert permits is not None
    for takes_it in (True, False):
        with contextlib.closing(holders.begin(path, CHAT)) as connection:
            assert holders.served.models[MINE].stopped.acquire(timeout=PATIENCE)
            assert connection.sock.recv(5) == b"HTTP/", "it is on its way"
            assert holders.served.post(path, CHAT, x_api_key=holders.text).status == 429
            taken = 0
            while takes_it and taken < size:
                part = connection.sock.recv(1 << 20)
                assert part, "the whole answer comes"
                taken += len(part)
        holders.served.wait_until(lambda: permits.running == 0)
        assert holders.served.post(path, CHAT, x_api_key=holders.text).status == 200


@pytest.mark.parametrize("encrypted", [False, True])
def test_an_answer_of_a_plugin_that_its_client_does_not_take_is_one_of_those_at_once(
    serve: Serve, tmp_path: Path, encrypted: bool
) -> None:
    size = 1 << 25

    @get("/plugged", sync_to_thread=False)
    def plugged() -> bytes:
        return b"x" * size

    extra = plugin("extra", configure_app=lambda config: config.route_handlers.append(plugged))
    tls = certificate(tmp_path) if encrypted else {}
    holders = Holders(serve, tmp_path, {MINE: fine()}, plugins=[extra], limits={"max_inflight": 1}, **tls)
    known = {"Authorization": f"Bearer {holders.text}"}
    permits = holders.served.keys.find(holders.text.encode(), datetime.datetime.now(datetime.UTC))
    assert permits is not None
    with contextlib.closing(holders.served.connect()) as connection:
        connection.request("GET", "/plugged", headers=known)
        assert connection.sock.recv(5) == b"HTTP/", "it is on its way"
        assert holders.served.get("/plugged", **known).status == 429
        taken = 0
        while taken < size:
            part = connection.sock.recv(1 << 20)
            assert part, "the whole answer comes"
            taken += len(part)
    holders.served.wait_until(lambda: permits.running == 0)


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("kind", ["plugged", "stream", "whole", "chat"])
def test_no_write_of_a_plugin_or_a_model_holds_the_loop_until_all_of_it_is_encrypted_or_copied(
    serve: Serve, tmp_path: Path, kind: str, encrypted: bool
) -> None:
    size = 1 << 23
    sizes: list[int] = []

    @get("/plugged", sync_to_thread=False)
    def plugged() -> bytes:
        return b"x" * size

    async def stream(body: bytes) -> Any:
        yield b"x" * size

    extra = plugin("extra", configure_app=lambda config: config.route_handlers.append(plugged))
    predict = stream if kind == "stream" else lambda body: b'"%b"' % (b"x" * size)
    model = Model({"predict": predict, "chat_completions": lambda inputs: "x" * size})
    tls = certificate(tmp_path) if encrypted else {}
    holders = Holders(serve, tmp_path, {MINE: model}, plugins=[extra], **tls)
    known = {"Authorization": f"Bearer {holders.text}"}
    with contextlib.closing(holders.served.connect()) as connection:
        connection.connect()
        holders.served.wait_until(lambda: bool(holders.served.server.server_state.connections))
        (there,) = holders.served.server.server_state.connections
        there.transport = Counting(there.transport, sizes)
        path = f"/models/{MINE}/" + ("v1/chat/completions" if kind == "chat" else "predict")
        if kind == "plugged":
            connection.request("GET", "/plugged", headers=known)
        else:
            connection.request("POST", path, json.dumps(CHAT), known)
        answer = connection.getresponse()
        assert answer.read().count(b"x") >= size
    assert sum(sizes) >= size and max(sizes) < (1 << 17 if encrypted else 1 << 21)
    if kind in ("whole", "chat"):
        named = [part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")]
        assert named == ["queue", "load", "model", "gateway"]


def test_an_answer_that_goes_out_in_pieces_ends_with_its_key(serve: Serve, tmp_path: Path) -> None:
    size = 1 << 25
    answer = {"predict": lambda body: b'"%b"' % (b"x" * size)}
    holders = Holders(serve, tmp_path, {MINE: Model(answer)}, **certificate(tmp_path))
    with contextlib.closing(holders.begin(f"/models/{MINE}/predict", {})) as connection:
        response = connection.getresponse()
        assert response.status == 200
        holders.change()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()


LARGE = 1 << 25  # more than the buffers of both systems hold


async def large_item(inputs: Any) -> Any:
    yield b"x" * LARGE if isinstance(inputs, bytes) else "x" * LARGE


async def large_sound(inputs: Any) -> Any:
    yield b"x" * LARGE


async def large_item_and_more(inputs: Any) -> Any:
    yield b"x" * LARGE
    await asyncio.Event().wait()


LARGE_ANSWERS = {
    "stream": (f"/models/{MINE}/predict", large_item),
    "running stream": (f"/models/{MINE}/predict", large_item_and_more),
    "whole": (f"/models/{MINE}/predict", lambda body: b"x" * LARGE),
    "untyped": (f"/models/{MINE}/predict", lambda body: Reply(b"x" * LARGE, content_type="", raw=True)),
    "events": ("/v1/chat/completions", large_item),
    "speech": ("/v1/audio/speech", large_sound),
}


@pytest.mark.parametrize("kind", LARGE_ANSWERS)
def test_an_answer_whose_model_has_said_all_ends_with_its_key(serve: Serve, tmp_path: Path, kind: str) -> None:
    path, script = LARGE_ANSWERS[kind]
    model = Model(dict.fromkeys(("predict", "chat_completions", "speech"), script))
    holders = Holders(serve, tmp_path, {MINE: model}, plugins=DIALECTS)
    body = {"input": "x", "voice": "x"} if kind == "speech" else {"stream": True, **CHAT}
    with contextlib.closing(holders.begin(path, body)) as connection:
        assert connection.sock.recv(5, socket.MSG_PEEK), "it is on its way"
        assert kind == "running stream" or model.stopped.acquire(timeout=PATIENCE)
        holders.change()
        answer, taken = connection.getresponse(), 0
        assert answer.status == 200
        ends = pytest.raises((http.client.IncompleteRead, ConnectionError)) if answer.chunked else nullcontext()
        with ends:
            while part := answer.read(1 << 16):
                taken += len(part)
        assert taken < LARGE // 2


def test_a_large_answer_ends_when_a_plugins_caller_expires(serve: Serve) -> None:
    def ada() -> Caller:
        return Caller("ada", expires=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=0.5))

    served = serve({MINE: Model({"predict": large_item})}, plugins=[people(ada=ada)])
    with contextlib.closing(served.connect()) as connection:
        connection.request("POST", f"/models/{MINE}/predict", b"{}", {"x-who": "ada"})
        assert connection.sock.recv(5, socket.MSG_PEEK)
        served.wait_until(lambda: all(there.is_lingering for there in served.server.server_state.connections))  # type: ignore[union-attr]
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            connection.getresponse().read()


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_waits_to_be_stored_ends_with_its_key(serve: Serve, tmp_path: Path, stream: bool) -> None:
    stored, go = threading.Event(), asyncio.Event()

    async def keep(owner: str, kept: Any) -> bool:
        stored.set()
        await go.wait()
        return True

    holders = Holders(serve, tmp_path, {MINE: fine()}, plugins=DIALECTS)
    holders.served.responses.keep = keep  # type: ignore[method-assign]
    with contextlib.closing(holders.begin("/v1/responses", {"stream": stream, "input": "x"})) as connection:
        assert stored.wait(PATIENCE)
        holders.change()
        if not stream:
            holders.served.do(go.set)
            assert connection.getresponse().status == 401
            return
        answer = connection.getresponse()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)) as caught:
            answer.read()
        assert b"response.completed" not in getattr(caught.value, "partial", b"")
        holders.served.do(go.set)


def test_a_stream_that_is_written_to_its_end_does_not_look_finished(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model goes on behind a stop string: then nobody waits for the call that the lost key ends."""
    begun, go, do = threading.Event(), asyncio.Event(), Beside.do

    async def slowly(self: Any, exchange: Any, size: int, work: Any, *more: Any) -> Any:
        if getattr(work, "__name__", "") == "finish":
            begun.set()
            await go.wait()
        return await do(self, exchange, size, work, *more)

    async def talk(inputs: Any) -> Any:
        yield "all. STOP"
        await asyncio.Event().wait()

    monkeypatch.setattr(Beside, "do", slowly)
    holders = Holders(serve, tmp_path, {MINE: Model({"chat_completions": talk}, enforce_stop=True)})
    with contextlib.closing(
        holders.begin("/v1/chat/completions", {"stream": True, "stop": "STOP", **CHAT})
    ) as connection:
        assert begun.wait(PATIENCE)
        holders.change()
        holders.served.do(go.set)
        answer = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
        assert b"all. " in caught.value.partial
        assert b"[DONE]" not in caught.value.partial and b'finish_reason":"' not in caught.value.partial


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/plugged"])
def test_a_body_that_still_comes_ends_with_its_key(serve: Serve, tmp_path: Path, path: str) -> None:
    @post("/plugged", request_max_body_size=None)
    async def plugged(request: Request[Any, Any, Any]) -> bytes:
        return await request.body()

    extra = plugin("extra", configure_app=lambda config: config.route_handlers.append(plugged))
    holders = Holders(serve, tmp_path, {MINE: streaming()}, plugins=[extra])
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {holders.text}\r\ncontent-length: 1000\r\n\r\n["
    with socket.create_connection(("127.0.0.1", holders.served.port), timeout=PATIENCE) as sock:
        sock.sendall(head.encode())
        permits = holders.served.keys.find(holders.text.encode(), datetime.datetime.now(datetime.UTC))
        assert permits is not None
        holders.served.wait_until(lambda: permits.running == 1)
        holders.change()
        said = b"".join(iter(lambda: sock.recv(65536), b""))  # until the connection ends
    if path == "/plugged":
        assert not said
    else:
        assert said.startswith(b"HTTP/1.1 401 ") and b"connection: close" in said
    holders.served.wait_until(lambda: permits.running == 0)


def test_lines_of_a_log_that_wait_for_their_reader_are_those_that_its_key_still_sees(
    serve: Serve, tmp_path: Path
) -> None:
    holders = Holders(serve, tmp_path, {MINE: fine(), HIDDEN: fine()}, limits={"scopes": SCOPES}, admin_http=True)
    tails = holders.served.hub.tails

    def fill() -> None:
        for _ in range(9000):
            tails.note(MINE, "m" * 2000)
        tails.note(HIDDEN, "the last")

    with contextlib.closing(holders.served.connect()) as connection:
        connection.request(
            "GET", "/admin/logs?follow=true&lines=0", headers={"Authorization": f"Bearer {holders.text}"}
        )
        answer = connection.getresponse()
        holders.served.do(fill)
        assert b"mmm" in answer.readline()
        holders.change(replace(holders.key, models=(HIDDEN,)))
        more = 0
        while b"the last" not in answer.readline():
            more += 1
        assert more < 6000


class Counting:
    """A transport that keeps the sizes of what is written to it."""

    def __init__(self, transport: Any, sizes: list[int]) -> None:
        self._transport, self._sizes = transport, sizes

    def write(self, data: bytes) -> None:
        self._sizes.append(len(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Stubborn:
    """Code that does not stop when it is told to, but when the test says so."""

    def __init__(self) -> None:
        self.go, self.told = asyncio.Event(), threading.Semaphore(0)

    async def value(self, inputs: Any) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.told.release()
            await self.go.wait()
        return b"1"

    async def items(self, inputs: Any) -> Any:
        yield "x"
        await self.value(inputs)

    async def messages(self, inputs: Any) -> Any:
        yield "send", "x"
        await self.value(inputs)


HANGING_UP = {
    "predict": (f"/models/{MINE}/predict", {}, 1),
    "chat": ("/v1/chat/completions", CHAT, 1),
    "stream": ("/v1/completions", {"prompt": "x", "stream": True, "max_tokens": 5}, 1),
    "several": ("/v1/chat/completions", {**CHAT, "n": 2}, 2),
    "tensors": (
        f"/v2/models/{MINE}/infer",
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]},
        1,
    ),
}


@pytest.mark.parametrize("way", ["hangs up", "loses patience"])
@pytest.mark.parametrize(("path", "body", "calls"), HANGING_UP.values(), ids=HANGING_UP)
def test_a_call_counts_until_its_code_has_stopped_though_its_client_has_gone(
    serve: Serve, tmp_path: Path, path: str, body: Any, calls: int, way: str
) -> None:
    """Else a key has as many run at once as it hangs up on."""
    stubborn = Stubborn()
    methods = {"predict": stubborn.value, "chat_completions": stubborn.value, "completions": stubborn.items}
    schema = {"type": "object", "properties": {"x": {"type": "array", "items": {"type": "number"}}}}
    model = Model(methods, capabilities={"input_schema": schema}, format="python")
    holders = Holders(serve, tmp_path, {MINE: model}, plugins=DIALECTS, limits={"max_inflight": 1})
    patience = {"X-Request-Timeout": "0.5"} if way == "loses patience" else {}
    with contextlib.closing(holders.served.connect()) as connection:
        headers = {"Authorization": f"Bearer {holders.text}", **patience}
        connection.request("POST", path, json.dumps(body), headers)
        assert all(model.begun.acquire(timeout=PATIENCE) for _ in range(calls))
        if patience:
            connection.getresponse().read()
    assert all(stubborn.told.acquire(timeout=PATIENCE) for _ in range(calls))
    loaded = f"/v1/models/{MINE}"
    assert holders.served.get(loaded, x_api_key=holders.text).status == 429
    holders.served.do(stubborn.go.set)
    assert all(model.stopped.acquire(timeout=PATIENCE) for _ in range(calls))
    assert holders.served.get(loaded, x_api_key=holders.text).status == 200


def test_a_websocket_counts_until_its_code_has_stopped_though_it_was_closed(serve: Serve, tmp_path: Path) -> None:
    stubborn = Stubborn()
    model = Model({"websocket": stubborn.messages})
    holders = Holders(serve, tmp_path, {MINE: model}, limits={"rpm": 1})
    permits = holders.served.keys.find(holders.text.encode(), datetime.datetime.now(datetime.UTC))
    assert permits is not None
    url = f"ws://127.0.0.1:{holders.served.port}/models/{MINE}/v1/websocket"
    with connect(url, additional_headers={"Authorization": f"Bearer {holders.text}"}) as socket:
        assert socket.recv(timeout=PATIENCE) == "x"
        socket.send("one too many")
        with pytest.raises(ConnectionClosed, match="1013"):
            socket.recv(timeout=PATIENCE)
    assert stubborn.told.acquire(timeout=PATIENCE) and permits.running == 1
    holders.served.do(stubborn.go.set)
    holders.served.wait_until(lambda: permits.running == 0)


def test_questions_count_for_the_rate_where_somebody_has_to_work(serve: Serve, tmp_path: Path) -> None:
    """Each of these asks models, goes through all of them, or reads what was kept."""
    limits = {"rpm": 1, "scopes": SCOPES}
    cost = ["/v1/models", f"/v1/models/{MINE}", f"/models/{MINE}/status", f"/v2/models/{MINE}/ready", "/metrics"]
    cost += ["/openapi.json", "/v1/responses/none", "/v1/responses/none/input_items", "/feed", f"/v2/models/{MINE}"]
    cost += [f"/v1/models/{MINE}/schema"]

    @get("/feed", sync_to_thread=False)
    def feed() -> str:
        return "of a plugin"

    extra = plugin("extra", configure_app=lambda config: config.route_handlers.append(feed))
    holders = Holders(serve, tmp_path, {MINE: fine()}, plugins=[*DIALECTS, extra], limits=limits)
    known = {"x_api_key": holders.text}
    permits = holders.served.keys.find(holders.text.encode(), datetime.datetime.now(datetime.UTC))
    assert permits is not None
    for method, path in (*(("GET", path) for path in cost), ("HEAD", "/v1/models"), ("DELETE", "/v1/responses/none")):
        permits._tokens = 1.0
        assert holders.served.ask(method, path, **known).status != 429, path
        assert holders.served.ask(method, path, **known).status == 429, path
    for path in ("/livez", "/readyz", "/version", "/v2", f"/v1/models/{MINE}/loaded", f"/models/{MINE}/ping", "/docs"):
        for _ in range(3):
            assert holders.served.get(path, **known).status == 200, path


def test_no_row_of_the_table_writes_out_what_a_model_says_for_nothing() -> None:
    """Rows that do not count have answers of a few bytes, whatever a model says of itself; any other has to count."""
    free = {row.template for row in ROUTES if not row.costs}
    assert free == {"/version", "/v2", "/v1/models/{model}/loaded", "/models/{model}/ping"}


def test_the_schema_of_a_model_whose_answer_is_not_taken_keeps_a_place_of_those_at_once(
    serve: Serve, tmp_path: Path
) -> None:
    """Otherwise one key may ask for it without end, and each answer is as large as the schema."""
    large = {"type": "object", "description": "a" * (8 << 20)}
    model = Model({"predict": lambda body: b"1"}, capabilities={"input_schema": large})
    holders = Holders(serve, tmp_path, {MINE: model}, limits={"max_inflight": 1})
    path, known = f"/v1/models/{MINE}/schema", {"x_api_key": holders.text}
    with socket.create_connection(("127.0.0.1", holders.served.port), timeout=PATIENCE) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {holders.text}\r\n\r\n".encode())
        permits = holders.served.keys.find(holders.text.encode(), datetime.datetime.now(datetime.UTC))
        assert permits is not None
        holders.served.wait_until(lambda: permits.running == 1)
        assert holders.served.get(path, **known).status == 429


def test_questions_take_a_place_of_those_at_once(serve: Serve, tmp_path: Path) -> None:
    model = Model({"predict": never, "is_healthy": never}, capabilities={"has_health_check": True})
    holders = Holders(serve, tmp_path, {MINE: model}, limits={"max_inflight": 1})
    with contextlib.closing(holders.served.connect()) as asks:
        asks.request("GET", f"/v1/models/{MINE}", headers={"Authorization": f"Bearer {holders.text}"})
        assert model.begun.acquire(timeout=PATIENCE)
        assert holders.served.get(f"/v1/models/{MINE}", x_api_key=holders.text).status == 429
