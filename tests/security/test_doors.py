"""T16 to T23: who gets in, by which door, and what is written about it."""

from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import threading
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from commands import command
from served import Model, Served
from websockets.sync.client import connect

from gateway.access import keys
from gateway.telemetry.logs import JSONLines
from gateway.testing import Gateway

Serve = Callable[..., Served]
Start = Callable[..., Gateway]
ECHO = "class Model:\n    def predict(self, inputs):\n        return inputs\n"


def fine() -> Model:
    names = ("chat_completions", "completions", "messages", "responses")
    methods: dict[str, Callable[[Any], Any]] = {name: lambda inputs: "fine" for name in names}
    methods |= {"predict": lambda body: b'"fine"', "embeddings": lambda inputs: [[0.5] for _ in inputs["input"]]}
    return Model(methods)


# ── T16, T17 ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_for_inference_opens_nothing_that_loads_or_changes_models(serve: Serve, tmp_path: Path) -> None:
    key, text = keys.create("alice")
    keys.write(tmp_path / "keys.toml", [key])
    served = serve({"m": fine()}, keys_file=tmp_path / "keys.toml")
    given = {"Authorization": f"Bearer {text}"}
    paths = {path.replace("{model}", "m") for path in served.get("/openapi.json", **given).json["paths"]}
    changing = {path for path in paths if path.endswith(("/load", "/unload", "/hot-reload"))}
    changing |= {"/admin/models", "/admin/models/m/unload", "/admin/drain", "/models/m/logs", "/hot-reload"}
    assert len(changing) > 5
    for path in changing:
        for method in ("GET", "POST", "PUT", "DELETE"):
            assert served.ask(method, path, None, **given).status in (403, 404, 405), f"{method} {path}"
    assert served.hub.catalog.models["m"].state == "ready"


def test_without_any_key_the_public_listener_has_no_admin_routes(serve: Serve) -> None:
    served = serve({"m": fine()})
    for path in ("/admin", "/admin/", "/admin/models", "/admin/models/m", "/admin/models/m/unload", "/models/m/logs"):
        for method in ("GET", "POST", "DELETE"):
            assert served.ask(method, path, None).status in (404, 405), f"{method} {path}"


# ── T18: keys are nowhere ────────────────────────────────────────────────────────────────────────────────────────────


SEEING = """
import http.client
import json

class Model:
    def predict(self, inputs, request):
        print("saw", dict(request.headers))
        return {**dict(request.headers), **request.query_params}
    def chat_completions(self, inputs, request):
        return json.dumps(dict(request.headers))
"""
SEEING_SOCKET = """
class Model:
    async def websocket(self, websocket):
        await websocket.send_json(dict(websocket.headers))
"""
SEEING_ID = "class Model:\n    def predict(self, inputs, request):\n        return request.state.request_id\n"
SEEING_ID_OF_SOCKET = """
class Model:
    async def websocket(self, websocket):
        await websocket.send_text(websocket.state.request_id)
"""
OWN_WORDS = "operators-own-words-1"
BY_COOKIE = """
from gateway import hookimpl

@hookimpl
def authorize(scope):
    return "alice" if (b"cookie", b"session=alices") in scope["headers"] else None
"""


def seen_by_models(
    running: Gateway, names: tuple[str, ...], headers: dict[str, str], query: str = ""
) -> dict[str, dict[str, str]]:
    """What the methods of each model see of a request with these headers."""
    found = {}
    for name in names:
        if name == "socket":
            url = running.url.replace("http", "ws", 1) + "/models/socket/v1/websocket"
            with connect(url, additional_headers=headers) as websocket:
                found[name] = json.loads(websocket.recv(timeout=60))
            continue
        chat = {"model": name, "messages": [{"role": "user", "content": "x"}]}
        for path, body in ((f"/v1/models/{name}:predict", {}), ("/v1/chat/completions", chat)):
            request = urllib.request.Request(f"{running.url}{path}?{query}", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                value = json.load(answer)
            found[f"{name}{path}"] = (
                value if "predict" in path else json.loads(value["choices"][0]["message"]["content"])
            )
    return found


def test_a_key_opens_the_gateway_and_is_not_handed_to_the_model(start: Start, tmp_path: Path) -> None:
    """Nor to its log; what else a client sends for the model's own use arrives, and one setting hands over all."""
    key, text = keys.create("alice")
    keys.write(tmp_path / "keys.toml", [key])
    models = {"m": SEEING, "socket": SEEING_SOCKET, "trusted": SEEING}
    running = start(models, "[models.trusted]\nforward_credentials = true\n")
    for given in ({"Authorization": f"Bearer {text}"}, {"x-api-key": text, "Authorization": "Basic other"}):
        for where, seen in seen_by_models(
            running,
            ("m", "socket"),
            {**given, "Cookie": f"k={text}", "Referer": f"http://x/?k={text.replace('_', '%5f')}", "x-mine": "1"},
            f"key={text}&a=b",
        ).items():
            assert text not in unquote(json.dumps(seen)), where
            assert seen["x-mine"] == "1"
            assert seen.get("authorization") == ("Basic other" if "x-api-key" in given else None)
        for where, seen in seen_by_models(running, ("trusted",), given).items():
            assert text in json.dumps(seen), where
    assert text not in running.log
    assert "gw_***" not in running.log
    assert "'authorization': 'Bearer ***'" in running.log  # of the model that was handed it, and printed it


def test_a_request_id_that_contains_a_key_is_replaced(start: Start, tmp_path: Path) -> None:
    """For the answer, the log and what a model sees of it, also over a websocket."""
    key, text = keys.create("alice")
    keys.write(tmp_path / "keys.toml", [key])
    running = start({"m": SEEING_ID, "socket": SEEING_ID_OF_SOCKET}, "", env={"GATEWAY_API_KEY": OWN_WORDS})
    written = (text, f"a.{text}", OWN_WORDS, urlsafe_b64encode(f"a:{OWN_WORDS}".encode()).decode().rstrip("="))
    for used in (text, OWN_WORDS):
        for name in ("X-Request-Id", "X-Baseten-Request-Id"):
            for given in (*written, "mine-1"):
                sent = {"Authorization": f"Bearer {used}", name: given}
                request = urllib.request.Request(f"{running.url}/v1/models/m:predict", b"{}", sent)
                with urllib.request.urlopen(request, timeout=60) as answer:
                    told = {json.load(answer), answer.headers["x-request-id"]}
                with connect(
                    f"{running.url.replace('http', 'ws', 1)}/models/socket/v1/websocket", additional_headers=sent
                ) as websocket:
                    told.add(websocket.recv(timeout=60))
                if given == "mine-1":
                    assert told == {given}
                else:
                    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in told), (given, told)
    assert not any(given in running.log for given in written)


def test_the_configured_key_is_not_handed_to_a_model_by_another_caller(start: Start, tmp_path: Path) -> None:
    key, text = keys.create("alice")
    keys.write(tmp_path / "keys.toml", [key])
    running = start({"m": SEEING, "socket": SEEING_SOCKET}, "", env={"GATEWAY_API_KEY": OWN_WORDS})
    given = {"Authorization": f"Bearer {text}", "x-other": OWN_WORDS, "x-mine": "1"}
    for where, seen in seen_by_models(running, ("m", "socket"), given, f"k={OWN_WORDS}&a=b").items():
        assert OWN_WORDS not in json.dumps(seen) and seen["x-mine"] == "1", where


def test_what_a_plugin_let_in_by_is_not_handed_to_the_model(start: Start, tmp_path: Path) -> None:
    (tmp_path / "door.py").write_text(BY_COOKIE)
    keys.write(tmp_path / "keys.toml", [])
    running = start({"m": SEEING, "socket": SEEING_SOCKET}, "[gateway]\nplugins = ['door.py']\n")
    given = {"Cookie": "session=alices", "Authorization": "Bearer another", "x-api-key": "third", "x-mine": "1"}
    given |= {"api-key": "of Azure", "x-goog-api-key": "of Google", "x-auth-token": "of somebody"}
    for where, seen in seen_by_models(running, ("m", "socket"), given).items():
        assert set(seen) & set(given) == {"x-mine"} and "cookie" not in seen and "authorization" not in seen, where
        assert seen["x-mine"] == "1"


def test_where_no_key_is_needed_a_model_sees_what_was_sent_to_it(start: Start) -> None:
    """But nothing that looks like a key of a gateway."""
    given = {"Authorization": "Bearer mine", "x-api-key": "too", "Cookie": "a=b", "x-other": keys.create("alice")[1]}
    for seen in seen_by_models(start({"m": SEEING, "socket": SEEING_SOCKET}), ("m", "socket"), given).values():
        assert (seen["authorization"], seen["x-api-key"], seen["cookie"]) == ("Bearer mine", "too", "a=b")
        assert "x-other" not in seen


def test_a_key_is_in_no_answer_and_no_line(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, text = keys.create("alice", rpm=1)
    keys.write(tmp_path / "keys.toml", [key])
    served = serve({"m": fine()}, keys_file=tmp_path / "keys.toml")
    caplog.set_level(logging.DEBUG)
    given = {"Authorization": f"Bearer {text}"}
    answers = [served.post("/models/m/predict", {}, **given) for _ in range(3)]
    answers += [
        served.get(f"/v1/models/{text}", **given),
        served.get("/nowhere", **given),
        served.get("/metrics", **given),
    ]
    answers += [served.get("/v1/models", Authorization=f"Bearer {text}x"), served.get("/v1/models", x_api_key=text)]
    told = "".join(f"{answer.pairs}{answer.body!r}" for answer in answers[:3] + answers[4:])
    assert text not in told and key.digest not in told
    assert text not in caplog.text
    assert text not in (tmp_path / "keys.toml").read_text()


def test_no_key_is_cut_in_a_line_before_it_is_found(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, text = keys.create("alice", scopes=("infer",))
    keys.write(tmp_path / "keys.toml", [key])
    served = serve({"m": fine()}, keys_file=tmp_path / "keys.toml", access_log=True, admin_http=True)
    caplog.set_level(logging.DEBUG)
    given = {"Authorization": f"Bearer {text}"}
    for left in (1, 10, 25):
        for limit in (128, 200, 512):
            for before, behind in (("/", ""), ("/v1/models/", ":predict"), ("/admin/models/", "/load")):
                for room in (limit, limit + len(before)):
                    served.post(f"{before}{'n' * (room - len(before) - len(text) + left)}{text}{behind}", {}, **given)
            name = "n" * (limit - len(text) + left) + text
            served.post("/v1/chat/completions", {"model": name, "messages": []}, **given)
            served.get("/v1/models", Host=name[-300:], **given)
            served.get("/v1/models", Origin=f"http://{name}", **given)
            served.ask("X" + name, "/v1/models", None, **given)
    lines = "\n".join(JSONLines().format(record) for record in caplog.records)
    assert "nnnn" in lines and text[:20] not in lines


# ── T21: nothing is fetched ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def trap() -> Iterator[tuple[int, list[bytes]]]:
    """A listener on loopback and what was sent to it."""
    hits: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.settimeout(5)
                    hits.append(sock.recv(1024))

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield listener.getsockname()[1], hits
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_no_address_in_a_request_is_ever_asked(serve: Serve, trap: tuple[int, list[bytes]]) -> None:
    port, hits = trap
    served = serve({"m": fine()})
    hosts = (
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    )
    for host in hosts:
        url = f"http://{host}:{port}/x.png"
        image = {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}],
        }
        file = {"role": "user", "content": [{"type": "file", "file": {"file_url": url, "file_id": url}}]}
        source = {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": url}}]}
        items = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
        bodies: list[tuple[str, Any]] = [
            ("/v1/chat/completions", {"messages": [image]}),
            ("/v1/chat/completions", {"messages": [file]}),
            ("/v1/messages", {"messages": [source], "max_tokens": 5}),
            ("/v1/responses", {"input": items}),
            ("/v1/embeddings", {"input": url}),
            ("/models/m/predict", {"image_url": url, "url": url, "file": f"file://{url}"}),
        ]
        for path, body in bodies:
            assert served.post(path, body).status < 500, path
        served.get("/v1/models", Referer=url, X_Forwarded_Host=f"{host}:{port}")
    assert hits == []


# ── T22: what a proxy says ───────────────────────────────────────────────────────────────────────────────────────────


def test_forwarded_headers_reset_no_limit_and_stand_for_no_host(serve: Serve, tmp_path: Path) -> None:
    key, text = keys.create("alice", rpm=2)
    keys.write(tmp_path / "keys.toml", [key])
    served = serve({"m": fine()}, keys_file=tmp_path / "keys.toml")
    statuses = []
    for number in range(8):
        forwarded = {
            "X_Forwarded_For": f"203.0.113.{number}",
            "X_Real_IP": f"203.0.113.{number}",
            "Forwarded": f"for=203.0.113.{number}",
        }
        statuses.append(served.post("/models/m/predict", {}, Authorization=f"Bearer {text}", **forwarded).status)
    assert statuses.count(200) == 2 and set(statuses) == {200, 429}
    assert served.get("/livez", Host="evil.example", X_Forwarded_Host="localhost").status == 421


# ── T23: what is written ─────────────────────────────────────────────────────────────────────────────────────────────

NASTY = {"CR": "a\rb", "LF": "a\nb", "ESC": "a\x1b[31mb\x1b]0;title\x07", "one MB": "x" * 1_000_000}


def test_nothing_that_clients_send_makes_a_second_line_in_the_log(start: Start) -> None:
    running = start({"m": ECHO}, options=["--log-format", "json", "--log-level", "debug"])
    host, port = running.url.removeprefix("http://").split(":")
    for text in NASTY.values():
        raw = text.encode()
        for lines in (
            [b"GET /livez HTTP/1.1", b"Host: localhost", b"X-Request-Id: " + raw],
            [b"GET /livez HTTP/1.1", b"Host: localhost", b"Authorization: Bearer " + raw],
            [b"GET /livez HTTP/1.1", b"Host: " + raw],
            [b"GET /livez HTTP/1.1", b"Host: localhost", b"Origin: " + raw],
            [b"GET /" + raw + b" HTTP/1.1", b"Host: localhost"],
            [b"POST /models/" + raw + b"/predict HTTP/1.1", b"Host: localhost", b"Content-Length: 0"],
        ):
            with socket.create_connection((host, int(port)), timeout=60) as sock:
                try:
                    sock.sendall(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
                    while sock.recv(65536):
                        pass
                except (ConnectionResetError, BrokenPipeError):
                    continue
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": text, "messages": []}))
        assert connection.getresponse().status in (400, 404)
        connection.close()
    assert running.stop() == 0
    for line in running.log.splitlines():
        if not line.startswith("Serving on "):
            event = json.loads(line)
            assert all(len(value) <= 2100 for value in event.values() if isinstance(value, str)), line[:300]


FORGER = """
import sys
print('{"level": "error", "logger": "gateway.access", "message": "forged"}')
print("2026-01-01 00:00:00 ERROR gateway | forged\\r2026-01-01 forged too \\x1b[2K\\x1b[1A\\x07")
print("y" * 100_000)
class Model:
    def __init__(self, secrets): self.secrets = secrets
    def predict(self, inputs):
        raise ValueError(f"the token {self.secrets['token']} is no good\\nERROR forged")
"""
SECRET = "hunter2-hunter2"


def test_a_model_forges_no_line_and_its_secret_is_in_no_body_and_no_log(start: Start, tmp_path: Path) -> None:
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/config.yaml").write_text("secrets: {token: null}\n")
    (tmp_path / "models/m/model.py").write_text(FORGER)
    options = ["--log-format", "json"]
    running = start(
        {"other": ECHO}, options=options, env={"GATEWAY_SECRET_TOKEN": SECRET, "GATEWAY_API_KEY": SECRET * 2}
    )
    host, port = running.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("POST", "/models/m/predict", "{}", {"Authorization": f"Bearer {SECRET * 2}"})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    assert answer.status == 500 and "hunter" not in body and "token" not in body
    running.wait_for("is no good")
    assert running.stop() == 0
    assert "hunter" not in running.log
    events = [json.loads(line) for line in running.log.splitlines() if not line.startswith("Serving on ")]
    forged = [event for event in events if "forged" in event["message"]]
    assert forged and all(event["logger"] == "gateway.model.m" for event in forged)
    assert not any(re.search(r"[\x00-\x1f]", event["message"]) for event in forged)


FAILING = """
class Model:
    def __init__(self, secrets): self.secrets = secrets
    def load(self): raise ImportError(f"401 for {self.secrets['token']}")
    def predict(self, inputs): ...
"""


def test_the_reason_of_a_failed_load_has_no_secret(start: Start, tmp_path: Path) -> None:
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/config.yaml").write_text("secrets: {token: null}\n")
    (tmp_path / "models/m/model.py").write_text(FAILING)
    env = {"GATEWAY_SECRET_TOKEN": SECRET, "NUM_LOAD_RETRIES_TRUSS": "0"}
    running = start({"other": ECHO}, options=["--only", "m,other", "--debug"], env=env, until="settled")
    with urllib.request.urlopen(f"{running.url}/v1/models", timeout=60) as answer:
        listed = answer.read().decode()
    assert "401 for ***" in listed
    assert "hunter" not in listed + running.log


ODD = "\x1b]0;title\x07\x9b2J\u202egnihtyna\u2066"


def test_no_text_of_a_model_reaches_a_terminal_as_anything_but_text(start: Start, tmp_path: Path) -> None:
    """Its reason in tables, answers and the log, what it prints, and the name of its directory."""
    failing = f"print({ODD!r})\nraise ImportError({ODD!r})\n{ECHO}"
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "NUM_LOAD_RETRIES_TRUSS": "0"}
    running = start({"m": failing, "other": ECHO}, env=env, options=["--debug"], until="settled")
    (tmp_path / f"models/{ODD}").mkdir()
    (tmp_path / f"models/{ODD}/weights.bin").write_bytes(b"")
    shown = [running.log]
    for arguments in (
        ["ps", "--url", running.url],
        ["logs", "m", "--url", running.url],
        ["check", "models"],
        ["models"],
    ):
        done = command(tmp_path, *arguments, **env)
        shown.append(done.stdout + done.stderr)
    with urllib.request.urlopen(f"{running.url}/v1/models", timeout=60) as answer:
        shown += [model.get("status_reason", "") for model in json.load(answer)["data"]]
    for text in shown:
        assert not set("\x1b\x07\x9b\u202e\u2066") & set(text)
    assert sum("gnihtyna" in text for text in shown) >= 5


def test_any_value_of_an_event_is_one_line_and_bounded() -> None:
    for text in (*NASTY.values(), "\u2028\x85", "\ud800"):
        record = logging.LogRecord("gateway.test", logging.INFO, __file__, 1, "%s", (text,), None)
        record.path = text
        line = JSONLines().format(record)
        assert "\n" not in line and "\x1b" not in line and len(line) < 20_000
        json.loads(line)
