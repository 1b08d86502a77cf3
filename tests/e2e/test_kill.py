"""A worker is killed under load: every request has one outcome, and only its own model's requests suffer."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import Gateway

from .faulty import PATIENCE, wait_for, workers

THREADS, REQUESTS, KILLS = 16, 200, 2  # the requests go on until the last kill is over
BETWEEN = 0.2  # seconds of calm before the next kill
HEAD = """
import asyncio, pathlib, time
BEGUN = pathlib.Path("..", "..", "begun").resolve()
class Model:
"""
PLAIN = """
    def predict(self, inputs):
        (BEGUN / inputs["token"]).touch()
        time.sleep(0.08)
        return {"token": inputs["token"]}
"""
LATER = """
    async def predict(self, inputs):
        (BEGUN / inputs["token"]).touch()
        await asyncio.sleep(0.08)
        return {"token": inputs["token"]}
"""
CHAT = """
    def chat_completions(self, inputs):
        token = inputs["messages"][-1]["content"]
        (BEGUN / token).touch()
        for _ in range(5):
            yield token + " "
            time.sleep(0.02)
"""
MODELS = {"plain": PLAIN, "later": LATER, "chat": CHAT, "bystander": PLAIN}
SETTINGS = "".join(f"[models.{name}]\nslots = 2\nmax_queue = 100\n" for name in MODELS)  # some calls always wait

Serve = Callable[..., Gateway]


@dataclass
class Outcome:
    """How a request ended: `ok`, `status` (an error), `event` (an error within a stream), or `lost` (no answer)."""

    model: str
    kind: str
    status: int = 0
    message: str = ""
    should_retry: str | None = None
    retry_after: str | None = None


class Ledger:
    """Which requests were sent, and how each of them ended: once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.sent: dict[str, str] = {}
        self.outcomes: dict[str, Outcome] = {}

    def send(self, token: str, model: str) -> None:
        with self._lock:
            assert token not in self.sent
            self.sent[token] = model

    def note(self, token: str, outcome: Outcome) -> None:
        with self._lock:
            assert token not in self.outcomes, f"{token} ended twice"
            self.outcomes[token] = outcome

    def open(self, model: str) -> list[str]:
        with self._lock:
            return [token for token, name in self.sent.items() if name == model and token not in self.outcomes]


class Client:
    """One connection that is kept alive, and made anew only when it broke."""

    def __init__(self, gateway: Gateway) -> None:
        self._connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=PATIENCE)

    def close(self) -> None:
        self._connection.close()

    def ask(self, model: str, token: str) -> Outcome:
        if model == "chat":
            path = "/v1/chat/completions"
            body: Any = {"model": model, "stream": True, "messages": [{"role": "user", "content": token}]}
        else:
            path, body = f"/v1/models/{model}:predict", {"token": token}
        try:
            self._connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            response = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Outcome(model, "lost", message=repr(error))
        try:
            data = response.read()
        except http.client.IncompleteRead as error:  # a stream may break off after it said why
            self.close()
            data = error.partial
        except OSError as error:
            self.close()
            return Outcome(model, "lost", response.status, repr(error))
        if response.status != 200:
            said = json.loads(data)["error"]
            message = said["message"] if model == "chat" else said
            headers = response.headers
            return Outcome(model, "status", response.status, message, headers["x-should-retry"], headers["retry-after"])
        return self._streamed(token, data) if model == "chat" else self._whole(model, token, data)

    def _whole(self, model: str, token: str, data: bytes) -> Outcome:
        assert json.loads(data) == {"token": token}
        return Outcome(model, "ok", 200)

    def _streamed(self, token: str, data: bytes) -> Outcome:
        lines = [line.removeprefix("data: ") for line in data.decode().splitlines() if line.startswith("data: ")]
        done = [line for line in lines if line == "[DONE]"]
        events = [json.loads(line) for line in lines if line != "[DONE]"]
        errors = [event["error"] for event in events if "error" in event]
        choices = [choice for event in events for choice in event.get("choices", ())]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
        expected = f"{token} " * 5
        assert expected.startswith(text)
        assert len(errors) + len(done) == 1, f"a stream that ends neither well nor with an error: {data!r}"
        if errors:
            assert "error" in events[-1] and reasons == []
            return Outcome("chat", "event", 200, errors[0]["message"])
        assert lines[-1] == "[DONE]" and (text, reasons) == (expected, ["stop"])
        return Outcome("chat", "ok", 200)


def statuses(gateway: Gateway) -> dict[str, str]:
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=PATIENCE)
    try:
        connection.request("GET", "/v1/models")
        return {model["id"]: model["status"] for model in json.load(connection.getresponse())["data"]}
    finally:
        connection.close()


def load(gateway: Gateway, ledger: Ledger, ids: Iterator[int], stop: threading.Event) -> None:
    client = Client(gateway)
    try:
        while (number := next(ids)) < REQUESTS or not stop.is_set():
            model = list(MODELS)[number % len(MODELS)]
            token = f"token-{number:05}"
            ledger.send(token, model)
            outcome = client.ask(model, token)
            ledger.note(token, outcome)
            if outcome.kind != "ok":
                time.sleep(0.1)
    finally:
        client.close()


def kill(gateway: Gateway, ledger: Ledger, victim: str, begun: Path) -> None:
    """Kill the worker while it runs calls, and wait for the next one."""
    directory = begun.parent / "models" / victim
    [pid] = workers(gateway, directory)
    wait_for(lambda: any((begun / token).exists() for token in ledger.open(victim)), "a call is running")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: bool(workers(gateway, directory) - {pid}), "there is another worker")
    wait_for(lambda: statuses(gateway)[victim] == "ready", "it is ready again")


@pytest.mark.parametrize("victim", ["plain", "later", "chat"])
def test_a_killed_worker_costs_its_own_calls_only(serve: Serve, tmp_path: Path, victim: str) -> None:
    begun = tmp_path.resolve() / "begun"
    begun.mkdir()
    (tmp_path / "gateway.toml").write_text(SETTINGS)
    gateway = serve({name: {"model.py": HEAD + code} for name, code in MODELS.items()})
    ledger, ids, stop = Ledger(), itertools.count(), threading.Event()

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(load, gateway, ledger, ids, stop) for _ in range(THREADS)]
        try:
            for _ in range(KILLS):
                time.sleep(BETWEEN)
                kill(gateway, ledger, victim, begun)
            time.sleep(BETWEEN)
        finally:
            stop.set()
        for client in running:
            client.result()

    outcomes = ledger.outcomes
    assert outcomes.keys() == ledger.sent.keys() and len(outcomes) >= REQUESTS
    kinds = Counter((outcome.model, outcome.kind) for outcome in outcomes.values())
    assert {model for model, kind in kinds if kind != "ok"} == {victim}, kinds
    assert all(kinds[model, "ok"] for model in MODELS), kinds

    failed = {token: outcome for token, outcome in outcomes.items() if outcome.kind != "ok"}
    for token, outcome in failed.items():
        assert outcome.kind in (("status", "event") if victim == "chat" else ("status",)), outcome
        assert re.search(rf"(?i)model (with name {victim}|'{victim}') ", outcome.message), outcome
        if outcome.kind == "event":
            assert (begun / token).exists()
            continue
        assert outcome.status in (502, 503), outcome
        if outcome.status == 503:
            assert not (begun / token).exists() and int(outcome.retry_after or 0) >= 1, outcome
        elif (begun / token).exists():
            assert outcome.should_retry == "false", outcome
        else:  # it waited, in the gateway or on its way into the worker
            assert outcome.should_retry in ("true", "false"), outcome
    hit = [token for token in failed if (begun / token).exists()]
    assert KILLS <= len(hit) <= KILLS * 2, "every kill hits what ran, which is no more than there are slots"
    assert statuses(gateway) == dict.fromkeys(MODELS, "ready")

    client = Client(gateway)
    for model in MODELS:
        assert client.ask(model, f"after-{model}").kind == "ok"
    client.close()
    assert gateway.stop() == 0
