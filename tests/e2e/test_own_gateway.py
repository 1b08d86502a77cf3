"""Models whose code calls the gateway that serves them: what would wait for itself is refused, all else is served."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.http import self_calls
from gateway.testing import Gateway

ASK = """
import json, os, pathlib, subprocess, sys, time, urllib.error, urllib.request

def ask(path, body=None):
    url = pathlib.Path("../../url").read_text() + path
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer: return [answer.status, json.load(answer)]
    except urllib.error.HTTPError as error: return [error.code, json.load(error)["error"]]

def wait_for_url():
    while not pathlib.Path("../../url").exists(): time.sleep(0.01)
"""
# A server of its own that could not have its port: its health check must not be answered in its place.
CHILD_SERVER = f'''{ASK}
# The health checks are asked by a program: those of the worker itself are seen by a gateway that is root only.
PROGRAM = """
import sys, urllib.error, urllib.request
for url in sys.argv[1:]:
    try: print(urllib.request.urlopen(url).status)
    except urllib.error.HTTPError as error: print(error.code, error.read().decode())
"""
class Model:
    def load(self):
        wait_for_url()
        asked = {{path: ask(path) for path in ("/", "/v1/models", "/version")}}
        url = pathlib.Path("../../url").read_text()
        checks = [url + path for path in ("/health", "/ping", "/readyz", "/livez")]
        by_program = subprocess.run([sys.executable, "-c", PROGRAM, *checks], capture_output=True, text=True,
                                    start_new_session=True)
        other = ask("/models/other/predict", 1), ask("/v1/models/other")
        pathlib.Path("../../seen").write_text(json.dumps([asked, by_program.stdout, other]))
        raise ImportError("the server is not up")  # which another try does not help
    def predict(self, x): return x
'''
SELF = f"""{ASK}
class Model:
    def predict(self, x): return ask("/models/self/predict", 0) if x else "inner"
    def chat_completions(self, body):
        return str(ask("/v1/chat/completions", {{"model": "self", "messages": body["messages"]}}))
"""
# Its calls wait for the slot inside the worker.
HOOKED = f"""{ASK}
class Model:
    def preprocess(self, x): return x
    def predict(self, x): return ask("/models/hooked/predict", 0) if x else "inner"
"""
ROOMY = f"""{ASK}
class Model:
    def predict(self, x): return ask("/models/roomy/predict", 0) if x else "inner"
"""
OTHER = f"""{ASK}
class Model:
    def predict(self, x): return ask("/models/roomy/predict", 0) if x == "ask" else x
"""
# Says that every connection of this machine is its own, and stays in its load.
LIAR = """
import os, pathlib, time
from gateway.worker import server
server.owns = lambda client_port, server_port: True
class Model:
    def load(self):
        print("lying")
        while not pathlib.Path("../../stop").exists(): time.sleep(0.01)  # while it loads, nobody can call it
    def predict(self, x): return x
"""
# Holds the interpreter's lock: neither its loop nor its threads go on.
DEAF = """
import ctypes
class Model:
    def load(self):
        print("holding", flush=True)
        ctypes.PyDLL(None).sleep(3600)
    def predict(self, x): return x
"""
OPEN = ("/livez", "/readyz", "/health", "/v1/models", "/metrics", "/openapi.json", "/")


def get(url: str, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_what_a_model_asks_of_its_own_gateway(serve: Callable[..., Gateway], tmp_path: Path) -> None:
    models = {
        "server": {"model/model.py": CHILD_SERVER, "config.yaml": ""},
        "self": {"model/model.py": SELF, "config.yaml": ""},
        "hooked": {"model/model.py": HOOKED, "config.yaml": ""},
        "roomy": {"model/model.py": ROOMY, "config.yaml": "runtime:\n  predict_concurrency: 2\n"},
        "other": {"model/model.py": OTHER, "config.yaml": ""},
    }
    gateway = serve(models, until="accepting", env={"NUM_LOAD_RETRIES_TRUSS": "0"})
    gateway.wait_for("model 'other' is ready")
    (tmp_path / "url.new").write_text(gateway.url)
    (tmp_path / "url.new").rename(tmp_path / "url")
    gateway.wait_for("server asked / while it loaded")
    assert get(f"{gateway.url}/health")[0] == 200, "others are answered meanwhile"
    gateway.wait_for("model 'server' failed")

    assert (tmp_path / "seen").exists(), gateway.log
    asked, by_program, other = json.loads((tmp_path / "seen").read_text())
    port = gateway.url.rpartition(":")[2]
    for path, (status, error) in asked.items():
        assert status == 421, path
        assert f"port {port} is that of the gateway itself" in str(error)
    checks = by_program.splitlines()
    assert len(checks) == 4
    assert all(line.startswith("421") and f"port {port} is that of the gateway itself" in line for line in checks)
    assert other[0] == [200, 1]
    assert other[1][0] == 200
    reason = gateway.reason("server")
    assert "the server is not up" in reason
    assert f"it asked / while it loaded, but port {port} is that of the gateway" in reason

    for name in ("self", "hooked"):
        status, (inner, error) = get(f"{gateway.url}/models/{name}/predict", 1)
        assert (status, inner) == (200, 508), name
        assert "would wait for itself" in error
    status, answer = get(
        f"{gateway.url}/v1/chat/completions", {"model": "self", "messages": [{"role": "user", "content": "x"}]}
    )
    assert "waits_for_itself" in answer["choices"][0]["message"]["content"]
    assert get(f"{gateway.url}/models/roomy/predict", 1) == (200, [200, "inner"])
    assert get(f"{gateway.url}/models/other/predict", "ask") == (200, [200, "inner"])


def test_a_model_that_says_all_connections_are_its_own_closes_no_page(
    serve: Callable[..., Gateway], tmp_path: Path
) -> None:
    gateway = serve({"liar": {"model/model.py": LIAR, "config.yaml": ""}}, until="accepting")
    gateway.wait_for("lying")
    try:
        assert {path: status(gateway.url + path) for path in OPEN} == dict.fromkeys(OPEN, 200) | {"/readyz": 503}
    finally:
        (tmp_path / "stop").touch()


def test_health_checks_do_not_wait_for_a_load_that_holds_the_lock(serve: Callable[..., Gateway]) -> None:
    gateway = serve({"deaf": {"model/model.py": DEAF, "config.yaml": ""}}, until="accepting")
    gateway.wait_for("holding")
    assert status(f"{gateway.url}/livez") == 200  # it may wait for the import of the web framework
    begun = time.monotonic()
    assert status(f"{gateway.url}/livez") == 200
    assert status(f"{gateway.url}/readyz") == 503
    # Each look has half a second, and a worker that was asked has two seconds for each.
    assert time.monotonic() - begun < self_calls.LOOK_TIMEOUT * 2 + 2.5


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
