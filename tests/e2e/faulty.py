"""A model that goes wrong as it is told, and what tests write down of the requests to it.

Input of `predict`: {"steps": [...]}; of `chat_completions`: such a list as the content of the last message. A step is a
value to return or to yield, or

    ["sleep", seconds]  ["spin"]            the code goes on later, or computes for ever
    ["hold"]  ["hold", seconds]             it does not let go of the interpreter: no thread, no heartbeat
    ["wait", path]  ["touch", path]         it waits for a file, and makes one
    ["raise", text]  ["nan"]  ["object"]    an exception, and values that have no form
    ["allocate", bytes]  ["print", bytes]   memory; output without a line break
    ["mute"]                                it closes its output
    ["start"]                               a process of its own; gives its id
    ["signal", name]  ["exit", status]      the end of its process; with "later" in front of it, after half a second
    ["lie", hex]                            bytes of its own on the channel to the gateway

What its `load` does stands in the file load.json of its directory, in the same form.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.testing import Gateway

PATIENCE = 120.0  # seconds for what should come at once

MODEL = """
import ctypes, gc, json, os, pathlib, signal, subprocess, sys, threading, time

def act(step):
    if not (isinstance(step, list) and step and isinstance(step[0], str)):
        return step
    kind, *rest = step
    if kind == "sleep":
        time.sleep(rest[0])
    elif kind == "spin":
        while True: pass
    elif kind == "hold":
        ctypes.PyDLL(None).sleep(rest[0] if rest else 3600)
    elif kind == "wait":
        while not pathlib.Path(rest[0]).exists(): time.sleep(0.005)
    elif kind == "touch":
        pathlib.Path(rest[0]).touch()
    elif kind == "raise":
        raise ValueError(rest[0])
    elif kind == "nan":
        return float("nan")
    elif kind == "object":
        return {"at": object()}
    elif kind == "allocate":
        return len(bytearray(rest[0]))
    elif kind == "print":
        os.write(1, b"x" * rest[0])
    elif kind == "mute":
        os.close(1)
        os.close(2)
    elif kind == "start":
        return subprocess.Popen(["sleep", "1000"], start_new_session=False).pid
    elif kind == "signal":
        os.kill(os.getpid(), getattr(signal, rest[0]))
        time.sleep(3600)
    elif kind == "exit":
        os._exit(rest[0])
    elif kind == "later":
        timer = threading.Timer(0.5, act, [rest])
        timer.daemon = True
        timer.start()
    elif kind == "lie":
        channel = next(o for o in gc.get_objects() if type(o).__name__ == "ThreadChannel")
        os.write(channel.transport.get_extra_info("socket").fileno(), bytes.fromhex(rest[0]))
        time.sleep(3600)
    else:
        return step
    return None

class Model:
    def load(self):
        told = pathlib.Path("load.json")
        for step in json.loads(told.read_text()) if told.exists() else []:
            act(step)
    def predict(self, inputs):
        return [act(step) for step in inputs["steps"]][-1]
    def chat_completions(self, inputs):
        for step in json.loads(inputs["messages"][-1]["content"]):
            value = act(step)
            if value is not None:
                yield value
"""


@dataclass
class Outcome:
    """How a request ended. `kind`: ok, status (an error), event (an error in a stream), cut, or lost (no answer)."""

    kind: str
    status: int = 0
    code: str = ""
    value: Any = None  # the answer, or the text of a stream
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.kind, self.status or "", self.code) if part)


class Ledger:
    """Requests on threads of their own, and how each of them ended: once. `check` wants all of them explained."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._lock = threading.Lock()
        self.sent: dict[str, str] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._threads: list[threading.Thread] = []

    def predict(self, name: str, model: str, *steps: Any, **headers: str) -> None:
        self._begin(name, model, f"/v1/models/{model}:predict", {"steps": steps}, headers)

    def chat(self, name: str, model: str, *steps: Any, stream: bool = True, **headers: str) -> None:
        messages = [{"role": "user", "content": json.dumps(steps)}]
        body = {"model": model, "stream": stream, "messages": messages}
        self._begin(name, model, "/v1/chat/completions", body, headers)

    def _begin(self, name: str, model: str, path: str, body: Any, headers: dict[str, str]) -> None:
        with self._lock:
            assert name not in self.sent
            self.sent[name] = model
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        thread = threading.Thread(target=self._run, args=(name, path, body, sent), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, name: str, path: str, body: Any, headers: dict[str, str]) -> None:
        outcome = ask(self.gateway, path, body, headers)
        with self._lock:
            assert name not in self.outcomes, f"{name} ended twice"
            self.outcomes[name] = outcome

    def of(self, name: str) -> Outcome:
        """How it ended, when it has."""
        wait_for(lambda: name in self.outcomes, f"{name} has ended")
        return self.outcomes[name]

    def check(self, **expected: str) -> None:
        """Everything that was sent has ended as expected, and nothing else was sent."""
        for thread in self._threads:
            thread.join(PATIENCE)
        assert {name: str(outcome) for name, outcome in self.outcomes.items()} == expected
        assert self.sent.keys() == expected.keys()


def ask(gateway: Gateway, path: str, body: Any, headers: dict[str, str] | None = None) -> Outcome:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=PATIENCE)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        is_cut = False
        try:
            data = response.read()
        except http.client.IncompleteRead as error:
            data, is_cut = error.partial, True
    except (OSError, http.client.HTTPException) as error:
        return Outcome("lost", value=repr(error))
    finally:
        connection.close()
    if response.status != 200:
        said = json.loads(data)["error"]
        return Outcome("status", response.status, said["code"] if isinstance(said, dict) else "", said, found)
    if found["content-type"].startswith("text/event-stream"):
        return _streamed(data, found, is_cut)
    if is_cut:
        return Outcome("cut", 200, value=data, headers=found)
    return Outcome("ok", 200, value=json.loads(data), headers=found)


def _streamed(data: bytes, headers: dict[str, str], is_cut: bool) -> Outcome:
    lines = [line.removeprefix("data: ") for line in data.decode().splitlines() if line.startswith("data: ")]
    events = [json.loads(line) for line in lines if line != "[DONE]"]
    errors = [event["error"] for event in events if "error" in event]
    choices = [choice for event in events for choice in event.get("choices", ())]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert not is_cut, f"a stream was cut: {data!r}"
    assert len(errors) + lines.count("[DONE]") == 1, f"a stream ends neither well nor with an error: {data!r}"
    if errors:
        assert "error" in events[-1] and reasons == [], "a stream that failed looks finished"
        return Outcome("event", 200, errors[0]["code"], text, headers)
    assert lines[-1] == "[DONE]" and reasons == ["stop"]
    return Outcome("ok", 200, value=text, headers=headers)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.005)


def workers(gateway: Gateway, directory: Path) -> set[int]:
    """The children of the gateway that work in this directory."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == gateway.process.pid and state != "Z" and (entry / "cwd").readlink() == directory:
                    found.add(int(entry.name))
    return found


def zombies(gateway: Gateway) -> set[int]:
    """Children of the gateway that have ended and that it has not waited for."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == gateway.process.pid and state == "Z":
                    found.add(int(entry.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextmanager
def bystander(gateway: Gateway, model: str) -> Iterator[list[Outcome]]:
    """One request after the other to a model that nothing happens to; at the end, all of them were answered."""
    outcomes: list[Outcome] = []
    stop = threading.Event()

    def run() -> None:
        while not outcomes or not stop.wait(0.02):
            outcomes.append(ask(gateway, f"/v1/models/{model}:predict", {"steps": [len(outcomes)]}))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert [str(outcome) for outcome in outcomes] == ["ok 200"] * len(outcomes)
    assert [outcome.value for outcome in outcomes] == list(range(len(outcomes)))
