"""What an operator does with a running gateway over its admin socket: look, read logs, reload, unload, load."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import command

from gateway.access import keys
from gateway.testing import Gateway

Serve = Callable[..., Gateway]
SAYS = """
import os, time
class Model:
    def load(self):
        print("{word} loads", flush=True)
    def predict(self, x):
        time.sleep(0.01)
        return ["{word}", os.getpid()]
    def chat_completions(self, inputs):
        for _ in range(3):
            yield "{word} "
            time.sleep(0.01)
"""


def says(word: str) -> str:
    return SAYS.replace("{word}", word)


@pytest.fixture
def operate(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs a command of the gateway's own on one that runs."""

    def run(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
        return operate_on(gateway, tmp_path, *arguments)

    return run


def operate_on(gateway: Gateway, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command(place, *arguments, "--url", gateway.url, **ENV(place))


def operate_beside(gateway: Gateway, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, so that another may run meanwhile."""
    order = [sys.executable, "-m", "gateway", *arguments, "--url", gateway.url]
    environment = {**os.environ, **ENV(place)}
    return subprocess.run(order, cwd=place, env=environment, capture_output=True, text=True, timeout=60)


def ENV(place: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(place)}


def ask(gateway: Gateway, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{gateway.url}{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def word(gateway: Gateway) -> str:
    status, answer = ask(gateway, "/models/m/predict", {})
    assert status == 200, answer
    return str(answer[0])


def test_ps_and_logs_show_what_runs(serve: Serve, operate: Any, tmp_path: Path) -> None:
    models = {"m": {"model.py": says("first")}, "n": {"model.py": says("other")}}
    gateway = serve(models, env={**ENV(tmp_path), "GATEWAY_ACCESS_LOG": "true"})
    found = {model["id"]: model for model in json.loads(operate(gateway, "ps", "--json").stdout)}
    assert (
        found["m"]["state"] == "ready"
        and found["m"]["replicas"][0]["pid"] == ask(gateway, "/models/m/predict", {})[1][1]
    )
    replica = found["m"]["replicas"][0]
    assert 10 << 20 < replica["memory_bytes"] == found["m"]["memory_bytes"] < 1 << 30
    assert 0 < replica["uptime_seconds"] < 120
    again = {model["id"]: model["last_call_at"] for model in json.loads(operate(gateway, "ps", "--json").stdout)}
    assert again["n"] is None and abs(time.time() - again["m"]) < 60
    assert "ready" in operate(gateway, "ps").stdout
    assert "first loads" in operate(gateway, "logs", "m").stdout
    assert "other loads" not in operate(gateway, "logs", "m").stdout
    wrong = operate(gateway, "logs", "nobody")
    assert wrong.returncode == 1 and "no model named 'nobody'" in wrong.stderr
    everything = operate(gateway, "logs", "-n", "300").stdout.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in everything)
    assert operate(gateway, "unload", "n").returncode == 0
    gateway.wait_for("client=admin-socket .*path=/admin/models/n/unload")
    assert "path=/admin/models\n" not in gateway.log, "looking leaves no line"
    texts = [line[len("2026-11-29 12:00:00 ") :] for line in everything]
    assert "m: first loads" in texts and "n: other loads" in texts


def test_logs_are_followed_over_a_reload_a_crash_and_to_the_end(serve: Serve, tmp_path: Path) -> None:
    gateway = serve({"m": {"model.py": says("first")}, "n": {"model.py": says("other")}}, env=ENV(tmp_path))
    with follow(gateway, tmp_path, "m") as one, follow(gateway, tmp_path, "-n", "0") as everything:
        until_line(one, "first loads")
        (tmp_path / "models/m/model.py").write_text(says("second"))
        assert operate_beside(gateway, tmp_path, "reload", "m").returncode == 0  # by then both follow
        until_line(one, "second loads")
        os.kill(ask(gateway, "/models/m/predict", {})[1][1], signal.SIGKILL)
        seen = until_line(one, "second loads")
        assert not [line for line in seen if "other" in line or "first" in line]
        until_line(everything, "m: second loads")
        until_line(everything, "m: second loads")
        one.send_signal(signal.SIGINT)
        assert one.wait(30) == 0
        assert one.stderr is not None and one.stderr.read() == ""
        gateway.stop()
        assert everything.wait(30) == 0
        assert everything.stderr is not None and everything.stderr.read() == "the gateway has ended\n"


@contextlib.contextmanager
def follow(gateway: Gateway, place: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    order = [sys.executable, "-m", "gateway", "logs", "-f", *arguments, "--url", gateway.url]
    environment = {**os.environ, **ENV(place)}
    pipe = subprocess.PIPE
    with subprocess.Popen(order, cwd=place, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # or the end of a test that fails would be waited for


def until_line(process: subprocess.Popen[str], wanted: str) -> list[str]:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        day, at, text = line.rstrip("\n").split(" ", 2)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", f"{day} {at}")
        if text == wanted:
            return seen
        seen.append(line)
    raise AssertionError(f"it ended without {wanted!r}: {seen}")


def test_a_reload_serves_new_code_and_nobody_hears_of_it(serve: Serve, operate: Any, tmp_path: Path) -> None:
    gateway = serve({"m": {"model.py": says("first")}}, env=ENV(tmp_path))
    over, seen, bad = threading.Event(), set[str](), list[Any]()

    def load() -> None:
        while not over.is_set():
            status, answer = ask(gateway, "/models/m/predict", {})
            seen.add(answer[0]) if status == 200 else bad.append(answer)

    clients = [threading.Thread(target=load) for _ in range(8)]
    for client in clients:
        client.start()
    words = ["first"]
    for turn in range(3):
        words.append(f"turn-{turn}")
        (tmp_path / "models/m/model.py").write_text(says(words[-1]))
        result = operate(gateway, "reload", "m")
        assert result.returncode == 0, result.stderr
        assert "m is reloaded" in result.stdout
        gateway.wait_for("audit: reload of model 'm' by user ")
        assert "over the admin socket: done" in gateway.log
        assert word(gateway) == words[-1]
    over.set()
    for client in clients:
        client.join()
    assert bad == [] and seen <= set(words)


def test_new_code_that_cannot_be_loaded_changes_nothing_and_is_explained(
    serve: Serve, operate: Any, tmp_path: Path
) -> None:
    gateway = serve({"m": {"model.py": says("first")}}, env=ENV(tmp_path))
    for text, told in (
        ("class Model:\n  def load(self) raise\n", "syntax"),
        ("import nowhere_to_be_found\n" + says("no"), "nowhere"),
    ):
        (tmp_path / "models/m/model.py").write_text(text)
        result = operate(gateway, "reload", "m")
        assert result.returncode == 1 and told in result.stderr.lower(), result.stderr
        assert word(gateway) == "first"


CHILD = """
import subprocess, sys, urllib.request
SERVER = (
    "import http.server\\n"
    "class H(http.server.BaseHTTPRequestHandler):\\n"
    "    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b'{word}')\\n"
    "    def log_message(self, *a): pass\\n"
    "server = http.server.ThreadingHTTPServer(('127.0.0.1', {port}), H)\\n"
    "print('listens', flush=True)\\n"
    "server.serve_forever()"
)
class Model:
    def load(self):
        self.child = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
        self.child.stdout.readline()  # it listens, or has ended
        self.predict(0)
    def predict(self, x):
        with urllib.request.urlopen("http://127.0.0.1:{port}/") as answer:
            return [answer.read().decode()]
"""


def free_port() -> int:
    """Below the range that the system assigns from for port 0, so that no other test is given it in the meantime."""
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", random.randrange(15_000, 32_000))) as found,
        ):
            return int(found.getsockname()[1])


def test_a_reload_asks_the_new_code_though_the_server_of_the_old_one_holds_its_port(
    serve: Serve, operate: Any, tmp_path: Path
) -> None:
    ports = {"beside": free_port(), "m": free_port()}

    def code(name: str, word: str) -> str:
        return CHILD.replace("{word}", word).replace("{port}", str(ports[name]))

    def write(name: str, text: str) -> None:
        (tmp_path / "models" / name / "model.py").write_text(text)

    (tmp_path / "gateway.toml").write_text("[models.m]\nreload = 'replace'\nwait_for_ready = 30\n")
    gateway = serve({name: {"model.py": code(name, "first")} for name in ports}, env=ENV(tmp_path))

    write("beside", code("beside", "second"))
    refused = operate(gateway, "reload", "beside")
    assert refused.returncode == 1
    assert f"port {ports['beside']} belongs to the replica that serves" in refused.stderr
    assert 'set reload = "replace" in [models.beside]' in refused.stderr
    assert ask(gateway, "/models/beside/predict", {}) == (200, ["first"])

    assert word(gateway) == "first"
    write("m", code("m", "second"))
    asked: list[tuple[int, Any]] = []

    def order() -> None:
        asked.append((operate_beside(gateway, tmp_path, "reload", "m").returncode, None))

    reload = threading.Thread(target=order)
    reload.start()
    gateway.wait_for(r"model 'm' is draining")
    asked.append(ask(gateway, "/models/m/predict", {}))  # which waits
    reload.join()
    assert asked in ([(200, ["second"]), (0, None)], [(0, None), (200, ["second"])])

    write("m", "class Model:\n    def load(self): raise ValueError('no good')\n    def predict(self, x): return x\n")
    failed = operate(gateway, "reload", "m")
    assert failed.returncode == 1 and "no good; the old replicas had been stopped first" in failed.stderr
    assert gateway.states()["m"] == "failed"
    write("m", code("m", "third"))
    assert operate(gateway, "reload", "m").returncode == 0
    assert word(gateway) == "third"


def test_changed_files_are_served_by_themselves_with_reload(serve: Serve, tmp_path: Path) -> None:
    gateway = serve({"m": {"model.py": says("first")}, "n": {"model.py": says("n")}}, "--reload", env=ENV(tmp_path))
    assert word(gateway) == "first"
    _, before = ask(gateway, "/models/n/predict", {})
    (tmp_path / "models/m/model.py").write_text(says("second"))
    gateway.wait_for(r"model 'm' is reloaded")
    assert word(gateway) == "second"
    (tmp_path / "models/m/model.py").write_text("class Model\n")
    gateway.wait_for(r"'m' by a change of its files: failed, but .*: .*syntax", 30)
    assert word(gateway) == "second"
    assert ask(gateway, "/models/n/predict", {})[1] == before


def test_a_model_is_unloaded_and_loaded_by_name(serve: Serve, operate: Any, tmp_path: Path) -> None:
    gateway = serve({"m": {"model.py": says("first")}}, env=ENV(tmp_path))
    assert "m is unloaded" in operate(gateway, "unload", "m").stdout
    assert ask(gateway, "/models/m/predict", {})[0] == 503
    assert json.loads(operate(gateway, "ps", "--json").stdout)[0]["replicas"] == []
    for what, told in (
        ("unload", "m: nothing to do: it is not loaded"),
        ("reload", "m: nothing to do: it is not loaded; its next load"),
        ("load", "m is ready, after"),
        ("load", "m: nothing to do: it is ready already"),
    ):
        assert told in operate(gateway, what, "m").stdout
    assert word(gateway) == "first"


def test_new_code_that_comes_in_by_a_restart_or_a_load_is_told(serve: Serve, operate: Any, tmp_path: Path) -> None:
    gateway = serve({"m": {"model.py": says("first")}}, env=ENV(tmp_path))
    (tmp_path / "models/m/model.py").write_text(says("second"))
    os.kill(ask(gateway, "/models/m/predict", {})[1][1], signal.SIGKILL)
    gateway.wait_for("audit: read of model 'm' by its restart: other files than at its last load: 'model.py'")
    assert word(gateway) == "second"
    operate(gateway, "unload", "m")
    (tmp_path / "models/m/model.py").write_text(says("third"))
    operate(gateway, "load", "m")
    gateway.wait_for("audit: read of model 'm' by its load: other files than at its last load: 'model.py'")
    assert word(gateway) == "third"


def test_an_order_for_a_model_whose_directory_is_gone_or_never_was_says_what_to_do(
    serve: Serve, operate: Any, tmp_path: Path
) -> None:
    gateway = serve({"m": {"model.py": says("m")}, "n": {"model.py": says("n")}}, env=ENV(tmp_path))
    there, away = tmp_path / "models/m", tmp_path / "away"
    there.rename(away)
    loaded, reloaded = operate(gateway, "load", "m"), operate(gateway, "reload", "m")
    assert (
        "m: nothing to do: it is ready already" in loaded.stdout
        and "its directory is gone; the loaded model keeps serving until" in loaded.stdout
    )
    assert reloaded.returncode == 1 and "directory is gone; put it back, or `gateway unload m` ends" in reloaded.stderr
    operate(gateway, "unload", "m")
    for what, told in (
        ("nothing", f"(have: n); there is no {there}; put its directory there, or make one: gateway new {there}"),
        ("a directory", f"{there} is no model: `gateway check {there}` says why"),
    ):
        if what == "a directory":
            there.mkdir()
        for order in ("load", "reload"):
            found = operate(gateway, order, "m")
            assert found.returncode == 1 and told in found.stderr, found.stderr
    assert "a model has the name of a directory" in operate(gateway, "load", "../m").stderr


def test_a_reload_that_hangs_is_ended_by_the_next_one_and_both_hear_how_that_went(
    serve: Serve, operate: Any, tmp_path: Path
) -> None:
    gateway = serve({"m": {"model.py": says("first")}}, env=ENV(tmp_path))
    code, statuses = tmp_path / "models/m/model.py", list[int]()
    code.write_text("print('it hangs', flush=True)\nwhile True: pass\n" + says("hangs"))

    def reload() -> None:
        statuses.append(operate_beside(gateway, tmp_path, "reload", "m").returncode)

    hangs = threading.Thread(target=reload)
    hangs.start()
    gateway.wait_for("it hangs")
    code.write_text(says("mended"))
    statuses.append(operate(gateway, "reload", "m").returncode)
    hangs.join()
    assert statuses == [0, 0] and word(gateway) == "mended"


def test_only_its_user_reaches_the_socket_and_it_goes_with_the_gateway(
    serve: Serve, operate: Any, tmp_path: Path
) -> None:
    gateway = serve({"m": {"model.py": says("first")}}, env=ENV(tmp_path))
    (path,) = tmp_path.glob("gateway-*.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    gateway.stop()
    assert not path.exists()
    gone = operate(gateway, "ps")
    assert gone.returncode == 1 and re.search(r"no gateway of yours listens at .*gateway-\d+\.sock", gone.stderr)


def test_http_has_no_admin_routes_unless_settings_and_key_say_so(serve: Serve, tmp_path: Path) -> None:
    paths = ("/admin/models", "/models/m/logs")
    key, text = keys.create("ops", scopes=("infer", "admin"))
    plain, other = keys.create("alice")
    keys.write(tmp_path / "keys.toml", [key, plain])
    closed = serve({"m": {"model.py": says("first")}}, env=ENV(tmp_path))
    assert [ask(closed, path, Authorization=f"Bearer {text}")[0] for path in paths] == [404, 404]
    closed.stop()
    (tmp_path / "gateway.toml").write_text("[gateway]\nadmin_http = true\n")
    opened = serve({"m": {"model.py": says("first")}}, env=ENV(tmp_path))
    assert [ask(opened, path, Authorization=f"Bearer {text}")[0] for path in paths] == [200, 200]
    assert [ask(opened, path, Authorization=f"Bearer {other}")[0] for path in paths] == [403, 403]
    assert [ask(opened, path)[0] for path in paths] == [401, 401]
