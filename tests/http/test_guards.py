"""Who may talk to the gateway: Host, Origin, keys, and what a browser on another origin is told."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from litestar import get, post
from served import Answer, Model, Served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gateway.errors import Unauthorized
from gateway.hookspecs import hookimpl
from gateway.http.exchange import Exchange
from gateway.http.guards import ONCE, _is_own

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
KEY = "sesame-0123456789"
ROOT = Path(__file__).resolve().parents[2]
HOT = ("/v1/chat/completions", "/models/m/predict", "/v1/models/m:predict")
Serve = Callable[..., Served]


def model() -> Model:
    async def chat(inputs: Any) -> Any:
        if inputs.get("stream"):
            return pieces()
        return "fine"

    async def pieces() -> Any:
        yield "fi"
        yield "ne"

    return Model({"predict": lambda body: b'"fine"', "chat_completions": chat})


def ws(served: Served) -> str:
    return f"ws://127.0.0.1:{served.port}/models/m/v1/websocket"


def plugin(name: str, **hooks: Callable[..., Any]) -> ModuleType:
    module = ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, hookimpl(function))
    return module


# ── Host ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_http_1_0_may_leave_the_host_out_and_no_other_may(serve: Serve) -> None:
    served = serve({"m": model()})
    for line in (b"OPTIONS /", b"HEAD /", b"GET /health"):  # the first is HAProxy's own check
        head = served.send(line + b" HTTP/1.0\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 204 ")) and b"connection: close" in head
        assert served.send(line + b" HTTP/1.0\r\nHost: other.example\r\n\r\n").startswith(b"HTTP/1.1 421 ")
        assert served.send(line + b" HTTP/1.0\r\nHost:\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert served.send(line + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/models/m/predict"])
def test_an_address_in_the_place_of_a_path_is_asked_for_by_its_own_host(serve: Serve, version: str, path: str) -> None:
    served = serve({"m": model()})

    def status(target: str, *headers: str) -> int:
        method = "POST" if path.endswith("predict") else "GET"
        lines = "".join(f"{header}\r\n" for header in ("connection: close", "content-length: 2", *headers))
        reply = served.send(f"{method} {target}{path} HTTP/{version}\r\n{lines}\r\n{{}}".encode("latin-1"))
        return int(reply.split(b" ", 2)[1])

    for good in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"):
        assert status(f"http://{good}", "host: evil.example") == 200
    for bad in (
        "evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "evil.example:80",
        "me@evil.example",
    ):
        assert status(f"http://{bad}", "host: localhost") == 421
        assert status(f"HTTPS://{bad}", "host: localhost") == 421
    assert status("http://evil.example") == (421 if version == "1.0" else 400)
    assert status("http://localhost", "host: localhost", "host: localhost") == 400


def raw(served: Served, *headers: str, path: str = "/livez") -> int:
    lines = "".join(f"{header}\r\n" for header in headers)
    reply = served.send(f"GET {path} HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode("latin-1"))
    return int(reply.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1", 200),
        ("127.9.8.7:80", 200),
        ("[::1]", 200),
        ("[::1]:8000", 200),
        ("gateway.example", 200),
        ("gateway.example:443", 200),
        ("Gateway.Example", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:8000", 421),
        ("10.0.0.1", 421),
        ("[2001:db8::1]:80", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 400),
        ("[::1", 400),
        ("::1", 400),
        ("::1]", 400),
        ("[::1]x", 400),
        ("[localhost]", 400),
        ("[127.0.0.1]", 400),
        ("[]", 400),
        ("127.0.0.1:80:80", 400),
        ("localhost:http", 400),
        ("[::1%lo]:80", 200),
        ("localhost@evil.example", 421),
    ],
)
def test_on_loopback_only_loopback_names_and_configured_hosts_are_answered(
    serve: Serve, host: str, status: int
) -> None:
    served = serve({"m": model()}, allowed_hosts=("gateway.example",))
    for path in ("/livez", "/v1/models", "/nowhere"):
        expected = 404 if (status, path) == (200, "/nowhere") else status
        if path == "/livez" and host in ("10.0.0.1", "[2001:db8::1]:80"):
            expected = 200  # a probe's way to ask; no page comes under an address that is not the gateway's
        assert raw(served, f"host: {host}", path=path) == expected


def test_a_request_has_exactly_one_host(serve: Serve) -> None:
    served = serve({"m": model()})
    assert raw(served) == 400
    assert raw(served, "host: localhost", "host: localhost") == 400
    assert raw(served, "host: localhost", "x-forwarded-host: evil.example") == 200


def test_bound_elsewhere_any_host_will_do_unless_some_are_configured(serve: Serve) -> None:
    anywhere = serve({"m": model()}, host="0.0.0.0", api_key=KEY)
    assert raw(anywhere, "host: anything.example") == 200
    listed = serve({"m": model()}, host="0.0.0.0", api_key=KEY, allowed_hosts=("good.example",))
    assert raw(listed, "host: good.example:8000") == 200
    for host in ("evil.example", "10.0.0.7:8000"):
        assert raw(listed, f"host: {host}", path="/v1/models") == 421


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready", "/ping"])
def test_probes_and_scrapes_ask_by_address_whatever_hosts_are_allowed(serve: Serve, path: str) -> None:
    authorization = f"authorization: Bearer {KEY}"
    listed = serve({"m": model()}, host="0.0.0.0", api_key=KEY, allowed_hosts=("good.example",))
    for host in ("10.0.0.7:8000", "[fd00::7]", "gateway.monitoring.svc:8000"):
        assert raw(listed, f"host: {host}", path=path) == 200
        assert raw(listed, f"host: {host}", authorization, path="/metrics") == 200
        assert raw(listed, f"host: {host}", path="/metrics") == 401
        assert raw(listed, f"host: {host}", authorization, path="/v1/models") == 421
    at_home = serve({"m": model()}, allowed_hosts=("good.example",))
    assert raw(at_home, "host: 10.0.0.7:8000", path=path) == raw(at_home, "host: 10.0.0.7", path="/metrics") == 200
    for asked in (path, "/metrics"):  # of a page that has led its name here
        assert raw(at_home, "host: evil.example", path=asked) == 421


def test_this_machine_may_ask_its_own_gateway_whatever_hosts_are_allowed(serve: Serve) -> None:
    listed = serve({"m": model()}, host="0.0.0.0", api_key=KEY, allowed_hosts=("good.example",))
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert raw(listed, f"host: {host}", f"authorization: Bearer {KEY}", path="/v1/models") == 200
    for host in ("localhost.evil.example", "127.0.0.1.evil.example"):
        assert raw(listed, f"host: {host}", f"authorization: Bearer {KEY}", path="/v1/models") == 421


# ── Origin ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"])
def test_a_foreign_origin_is_refused_with_every_method(serve: Serve, method: str) -> None:
    served = serve({"m": model()})
    for path in ("/livez", "/v1/models", "/v1/chat/completions", "/models/m/predict", "/nowhere"):
        for origin in ("https://evil.example", "null", "http://localhost:1", "https://127.0.0.1.evil.example"):
            answer = served.ask(method, path, b"{}", Origin=origin)
            assert answer.status == 403
            assert "access-control-allow-origin" not in answer.headers
            if method != "HEAD":
                assert "forbidden_origin" in answer.body.decode() or answer.headers["x-baseten-error-code"]


def test_the_gateways_own_pages_may_call_it(serve: Serve) -> None:
    served = serve({"m": model()})
    answer = served.post("/v1/chat/completions", CHAT, Origin=served.url, Content_Type="application/json")
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("scheme", ["https", "moz-extension", "foo", "ftp", ""])
def test_an_origin_of_another_scheme_is_foreign(serve: Serve, scheme: str) -> None:
    served = serve({"m": model()})
    origin = f"{scheme}://127.0.0.1:{served.port}"
    for more in ({}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Sec_Fetch_Site": "none"}):
        for path in ("/livez", "/v1/models"):
            assert served.get(path, Origin=origin, **more).status == 403
    with pytest.raises(InvalidStatus, match="403"), connect(ws(served), additional_headers={"Origin": origin}):
        pass
    assert (
        serve({"m": model()}, allowed_origins=("https://127.0.0.1:1",))
        .get("/livez", Origin="https://127.0.0.1:1", Sec_Fetch_Site="cross-site")
        .status
        == 200
    ), "which gateway.toml may allow"


def test_an_origin_behind_a_proxy_that_ends_tls_is_own_if_the_browser_says_so(serve: Serve) -> None:
    served = serve({"m": model()}, allowed_hosts=("gw.example",))
    for host, origin in (("gw.example", "https://gw.example"), ("gw.example:8443", "https://gw.example:8443")):
        assert served.get("/v1/models", Host=host, Origin=origin, Sec_Fetch_Site="same-origin").status == 200
        assert served.get("/v1/models", Host=host, Origin=origin).status == 403
    other = {"Origin": "https://gw.example:8443", "Sec_Fetch_Site": "same-origin"}
    assert served.get("/v1/models", Host="gw.example", **other).status == 403


def test_an_own_origin_is_not_believed_against_the_browser(serve: Serve) -> None:
    served = serve({"m": model()})
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert served.get("/v1/models", Origin=served.url, Sec_Fetch_Site=site).status == status


@pytest.mark.parametrize(
    ("scheme", "host", "origin", "own"),
    [
        ("http", "localhost", "http://localhost", True),
        ("http", "localhost:80", "http://localhost", True),
        ("ws", "localhost", "http://localhost:80", True),
        ("http", "[::1]", "http://[::1]:80", True),
        ("http", "localhost", "http://localhost:443", False),
        ("http", "localhost:443", "http://localhost", False),
        ("https", "localhost", "https://localhost:443", True),
        ("wss", "localhost:443", "https://localhost", True),
        ("https", "localhost", "http://localhost", False),
        ("wss", "localhost", "http://localhost", False),
        ("https", "localhost:80", "http://localhost", False),
        ("http", "localhost", "https://localhost", False),
        ("http", "localhost", "localhost", False),
    ],
)
def test_an_origin_is_a_scheme_a_host_and_a_port(scheme: str, host: str, origin: str, own: bool) -> None:
    scope = {"method": "GET", "path": "/", "headers": [], "scheme": scheme}
    assert _is_own(Exchange(scope, None, None), origin, host) is own


def test_a_browsers_form_cannot_reach_a_model(serve: Serve) -> None:
    served = serve({"m": model()}, allowed_origins=("https://app.example",))
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = served.post("/v1/chat/completions", CHAT, Origin="https://app.example", Content_Type=kind)
        assert answer.status == 415
        assert served.post("/v1/chat/completions", CHAT, Content_Type=kind).status == 200, "curl sends any type"


# ── CORS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

APP = "https://App.example"


def allowed(answer: Answer) -> bool:
    headers = answer.headers
    if "access-control-allow-origin" not in headers:
        return False
    assert headers["access-control-allow-origin"] == APP
    exposed = headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "retry-after", "x-ratelimit-limit-requests", "x-ratelimit-reset-tokens"} <= set(exposed)
    assert "origin" in headers["vary"]
    return True


def test_an_allowed_origin_may_read_successes_errors_and_streams(serve: Serve) -> None:
    served = serve({"m": model()}, allowed_origins=("https://app.example/",), api_key=KEY)
    known = {"Origin": APP, "Authorization": f"Bearer {KEY}", "Content_Type": "application/json"}
    for path in HOT:
        assert allowed(good := served.post(path, CHAT, **known)) and good.status == 200
    stream = served.post("/v1/chat/completions", {**CHAT, "stream": True}, **known)
    assert allowed(stream) and stream.headers["content-type"].startswith("text/event-stream")
    for path, status in (("/livez", 200), ("/v1/models", 200), ("/nowhere", 404), ("/v1/chat/completions", 405)):
        answer = served.get(path, **known)
        assert allowed(answer) and answer.status == status
    for path in HOT:
        unknown = served.post(path, CHAT, Origin=APP)
        assert allowed(unknown) and unknown.status == 401
        bad = served.post(path, b"{", **{**known, "Content_Encoding": "gzip"})
        assert allowed(bad) and bad.status == 415


@pytest.mark.parametrize("path", [*HOT, "/v1/models", "/livez", "/nowhere"])
def test_a_preflight_is_answered_without_a_key_and_echoes_what_was_asked(serve: Serve, path: str) -> None:
    served = serve({"m": model()}, allowed_origins=("https://app.example",), api_key=KEY)
    asked = "authorization,content-type,x-stainless-lang"
    preflight = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": asked}
    answer = served.ask("OPTIONS", path, Origin=APP, **preflight)
    assert (answer.status, answer.body) == (204, b"") and allowed(answer)
    assert answer.headers["access-control-allow-headers"] == asked
    assert {"GET", "POST", "DELETE", "OPTIONS"} == set(answer.headers["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in answer.headers
    for origin in ("https://evil.example", "null"):
        refused = served.ask("OPTIONS", path, Origin=origin, **preflight)
        assert not any(name.startswith("access-control") for name in refused.headers)
        assert served.ask("OPTIONS", path, Origin=origin).status == 403


def test_options_that_is_no_preflight_needs_a_key_like_any_other(serve: Serve) -> None:
    served = serve({"m": model()}, api_key=KEY)
    assert served.ask("OPTIONS", "/v1/models").status == 401
    assert served.ask("OPTIONS", "/v1/models", Access_Control_Request_Method="GET").status == 401


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_page_of_another_origin_loads_without_saying_so_is_refused(serve: Serve, site: str) -> None:
    served = serve({"m": model()}, allowed_origins=("https://app.example",))
    for mode, dest in (("no-cors", "image"), ("no-cors", "script"), ("navigate", "iframe"), ("cors", "empty")):
        loads = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": dest}
        for path in ("/v1/models", "/", "/docs/page.js", "/livez"):
            assert served.get(path, **loads).status == 403
        assert served.get("/v1/models", Origin="https://app.example", **loads).status == 200
    followed = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert served.get("/", **followed).status == 200, "a link leads here"
    assert served.post("/models/m/predict", **followed).status == 403, "and a form does not"
    for name, value in (("Sec_Purpose", "prefetch;prerender"), ("Purpose", "prefetch"), ("X_Moz", "prefetch")):
        assert served.get("/v1/models", **followed, **{name: value}).status == 403, "nor a link that nobody followed"
    for own in ("same-origin", "none"):
        assert (
            served.get("/v1/models", Sec_Fetch_Site=own, Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image").status == 200
        )
    assert serve({"m": model()}, allowed_origins=("*",)).get("/v1/models", Sec_Fetch_Site=site).status == 200


@pytest.mark.parametrize("name", sorted(ONCE))
def test_a_request_has_each_header_that_the_gateway_uses_once(serve: Serve, name: bytes) -> None:
    served = serve({"m": model()}, api_key=KEY)
    good = {b"host": b"localhost", b"authorization": f"Bearer {KEY}".encode(), b"connection": b"close"}
    lines = b"".join(b"%b: %b\r\n" % pair for pair in (good | {name: good.get(name, b"same-origin")}).items())
    for second in (good.get(name, b"same-origin"), b"another"):
        answer = served.send(b"GET /v1/models HTTP/1.1\r\n%b%b: %b\r\n\r\n" % (lines, name, second))
        assert answer.startswith(b"HTTP/1.1 400 ") and b"connection: close" in answer
        assert b"more than one %b header" % name in answer


def test_what_may_be_a_list_may_come_in_several_headers(serve: Serve) -> None:
    served = serve({"m": model()}, api_key=KEY)
    head = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer %b\r\n"
    for name in (b"accept", b"cookie", b"via", b"forwarded", b"x-forwarded-for", b"prefer", b"cache-control", b"x-own"):
        answer = served.send(head % KEY.encode() + b"%b: a=1\r\n%b: b=2\r\n\r\n" % (name, name))
        assert answer.startswith(b"HTTP/1.1 200 "), name


def test_of_each_header_that_the_gateway_reads_it_is_known_whether_it_may_be_repeated() -> None:
    read = rb"""(?:headers?\.get\(|self\.header\(|exchange\.header\(|headers\[)b"([a-z-]+)\""""
    sources = [file.read_bytes() for file in (ROOT / "gateway" / "http").rglob("*.py")]
    names = {name for source in sources for name in re.findall(read, source)}
    assert {b"host", b"content-type"} < names
    assert names - ONCE == {b"accept", b"access-control-request-headers", b"content-length"}, (
        "two are lists, and a second length is refused by the protocol"
    )


@pytest.mark.parametrize("other", ["another", f"{KEY}x"])
def test_a_request_has_one_key_however_often_it_is_sent(serve: Serve, other: str) -> None:
    served = serve({"m": model()}, api_key=KEY)
    for first, second in ((KEY, other), (other, KEY)):
        answer = served.get("/v1/models", Authorization=f"Bearer {first}", X_API_Key=second)
        assert answer.status == 400 and "different keys" in answer.error["message"]
        assert answer.headers["connection"] == "close"
    assert served.get("/v1/models", Authorization=f"Bearer {KEY}", X_API_Key=KEY).status == 200
    assert served.get("/v1/models", Authorization="Basic other", X_API_Key=KEY).status == 200, "of a proxy before it"


def test_no_host_is_remembered_or_answered_that_is_longer_than_a_name(serve: Serve) -> None:
    for settings in ({}, {"host": "0.0.0.0", "api_key": KEY}):
        served = serve({"m": model()}, **settings)
        refused = served.get("/livez", Host=f"localhost:{'0' * 400}")
        assert refused.status == 400 and "longer than 320 bytes" in refused.error["message"]
        assert served.get("/livez", Host=f"localhost:{'0' * 100}").status == 200


def test_a_star_allows_every_origin(serve: Serve) -> None:
    served = serve({"m": model()}, allowed_origins=("*",))
    assert allowed(served.get("/v1/models", Origin=APP))


def test_without_an_origin_nothing_is_said_of_origins(serve: Serve) -> None:
    served = serve({"m": model()}, allowed_origins=("*",))
    for answer in (served.get("/livez"), served.post("/models/m/predict")):
        assert not any(name.startswith("access-control") for name in answer.headers)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {KEY}"},
        {"Authorization": f"Bearer  {KEY} "},
        {"X_API_Key": KEY},
    ],
)
def test_a_key_is_taken_from_either_header(serve: Serve, headers: dict[str, str]) -> None:
    served = serve({"m": model()}, api_key=KEY)
    assert served.post("/v1/chat/completions", CHAT, **headers).status == 200
    assert served.post("/models/m/predict", **headers).status == 200
    assert served.get("/v1/models", **headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": "Bearer "},
        {"X_API_Key": "wrong"},
    ],
)
def test_without_the_key_every_route_is_401_before_anything_is_read(serve: Serve, headers: dict[str, str]) -> None:
    served = serve({"m": model()}, api_key=KEY)
    for path in (*HOT, "/v1/models/none:predict", "/nowhere"):
        answer = served.post(path, b"not even json", **headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Incorrect API key provided" in str(answer.error)
        assert KEY not in answer.body.decode()
    assert not served.models["m"].calls


def test_a_refused_body_is_not_waited_for(serve: Serve) -> None:
    served = serve({"m": model()}, api_key=KEY)
    for path in HOT:
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\nconnection: close\r\n\r\n"
        assert served.send(head.encode()).startswith(b"HTTP/1.1 401 ")


def spellings(path: str) -> list[str]:
    return [path, path + "/", "/" + path, path.replace("/", "//", 1), path.upper(), "/." + path, "/livez/.." + path]


def test_a_walk_over_every_route_finds_no_open_door(serve: Serve) -> None:
    @get("/plugged", sync_to_thread=False)
    def plugged() -> str:
        return "in"

    @post("/v1/plugged", sync_to_thread=False)
    def plugged_too() -> str:
        return "in"

    def configure_app(config: Any) -> None:
        config.route_handlers += [plugged, plugged_too]

    served = serve({"m": model()}, plugins=[plugin("extra", configure_app=configure_app)], api_key=KEY)
    known = {"Authorization": f"Bearer {KEY}"}
    assert served.get("/plugged", **known).status == 200
    document = served.get("/openapi.json", **known).json
    paths = {path.replace("{model}", "m") for path in document["paths"]}
    paths |= {route.path for route in served.app.others.build().routes}
    paths |= {
        "/docs/start.js",
        "/docs/start.html",
        "/openapi.json",
        "/v1/models/m:predict_binary",
        "/models/m/v1/models",
    }
    assert {"/plugged", "/v1/plugged", "/v1/chat/completions", "/models/m/predict"} <= paths
    still_open = {"/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready", "/ping"}
    still_open |= {"/", "/docs", "/docs/", "/docs/style.css", "/docs/page.js", "/docs/start.js", "/docs/api.js"}
    for path in sorted(paths):
        for spelling in spellings(path):
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
                status = served.ask(method, spelling, b"{}").status
                if spelling in still_open and method in ("GET", "HEAD"):
                    assert status == (307 if spelling == "/docs/" else 200)
                else:
                    assert status == 401, f"{method} {spelling} is {status}"


def test_keys_are_compared_in_constant_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve({"m": model()}, api_key=KEY)
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for key in (KEY, "wrong", "x" * 1000):
        served.get("/v1/models", X_API_Key=key)
    size = hashlib.sha256().digest_size
    assert compared == [(2 * size, 2 * size)] * 5, "a wrong one once more, for the log to say why"


# ── plugins that know who is calling ─────────────────────────────────────────────────────────────────────────────────


def test_a_plugin_may_let_callers_in_and_refuse_them(serve: Serve) -> None:
    def authorize(scope: Mapping[str, Any]) -> str | None:
        token = dict(scope["headers"]).get(b"x-token")
        if token == b"bad":
            raise Unauthorized("Incorrect API key provided: that one is revoked.")
        return "alice" if token == b"good" else None

    served = serve({"m": model()}, plugins=[plugin("people", authorize=authorize)], api_key=KEY)
    for path in HOT:
        assert served.post(path, CHAT, X_Token="good").status == 200
        assert served.post(path, CHAT, X_Token="bad").status == 401
        assert served.post(path, CHAT, X_Token="bad", X_API_Key=KEY).status == 401
        assert served.post(path, CHAT).status == 401
        assert served.post(path, CHAT, X_API_Key=KEY).status == 200


def test_a_plugin_that_breaks_lets_nobody_in(serve: Serve) -> None:
    def authorize(scope: Mapping[str, Any]) -> str | None:
        raise RuntimeError("the directory is down")

    served = serve({"m": model()}, plugins=[plugin("people", authorize=authorize)], api_key=KEY)
    for path in HOT:
        answer = served.post(path, CHAT, X_API_Key=KEY)
        assert answer.status == 500 and b"directory" not in answer.body
    assert served.get("/livez").status == 200


def test_nothing_of_a_header_is_echoed_unescaped(serve: Serve) -> None:
    served = serve({"m": model()})
    evil = '<script>"\\'
    for answer in (served.get("/v1/models", Origin=evil), served.get(f"/v1/models/{'x' * 5000}")):
        assert answer.status in (403, 404)
        assert len(answer.body) < 1000 and json.loads(answer.body)
