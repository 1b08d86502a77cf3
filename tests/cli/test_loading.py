"""predict and chat of a model that is not ready, against a small server that says how it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from gateway.cli import loading

Run = Callable[..., Result]
NOT_READY = 503, {"error": {"message": "model 'm' is loading"}}
GOOD = 200, {"y": 1}


class Server(ThreadingHTTPServer):
    """Gives `states` one after the other to those who ask how the model is, and `answers` to its calls."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.states: list[str] = []
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.answer(200, {"data": [{"id": "m", "status": self.server.states.pop(0)}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(*self.server.answers.pop(0))

    def answer(self, status: int, value: Any) -> None:
        self.send_response(status)
        if status == 503:
            self.send_header("retry-after", "3")
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(loading, "time", SimpleNamespace(sleep=found.append))  # threads of other tests sleep on
    return found


def test_a_ready_model_is_called_without_a_word(run: Run, server: Server) -> None:
    server.states, server.answers = ["ready"], [GOOD]
    result = run("predict", "team/m", "--url", server.url)
    assert (result.stdout, result.stderr) == ('{"y": 1}', "")
    assert server.asked == ["/models/team/m/v1/models"]


@pytest.mark.parametrize("state", ["unloaded", "loading", "restarting"])
def test_who_has_to_wait_for_a_load_is_told_once(run: Run, server: Server, state: str, pauses: list[float]) -> None:
    server.states, server.answers = [state, "loading", "loading"], [NOT_READY, NOT_READY, GOOD]
    result = run("predict", "m", "--url", server.url)
    assert (result.exit_code, result.stderr) == (0, "m is loading …\n") and '{"y": 1}' in result.stdout
    assert pauses == [3.0, 3.0], "as long as the gateway says"


def test_a_model_that_began_to_load_meanwhile_is_waited_for_too(run: Run, server: Server, pauses: list[float]) -> None:
    server.states, server.answers = ["ready", "restarting"], [NOT_READY, GOOD]
    result = run("chat", "m", "hello", "--url", server.url)
    assert (result.exit_code, result.stderr, len(pauses)) == (0, "m is loading …\n", 1)


def test_a_load_that_fails_ends_the_wait_with_what_the_gateway_says(
    run: Run, server: Server, pauses: list[float]
) -> None:
    failed = 503, {"error": {"message": "model 'm' could not be loaded; `gateway logs m` says why"}}
    server.states, server.answers = ["unloaded", "loading", "failed"], [NOT_READY, failed]
    result = run("chat", "m", "hello", "--url", server.url)
    assert result.exit_code == 1
    first, second, *_ = result.stderr.splitlines()
    assert first == "m is loading …" and "`gateway logs m` says why" in second


def test_a_ready_model_that_is_too_busy_is_not_waited_for(run: Run, server: Server, pauses: list[float]) -> None:
    server.states, server.answers = ["ready", "ready"], [(503, {"error": {"message": "waited 30 s for a slot"}})]
    result = run("predict", "m", "--url", server.url)
    assert (result.exit_code, result.stderr, pauses) == (1, "Error: 503: waited 30 s for a slot\n", [])
