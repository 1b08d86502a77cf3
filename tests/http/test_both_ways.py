"""A client cannot tell the fast way of a predict from the other: each request goes down both, and all is compared.

Fast is a body that comes with its head. For the other way the body follows in two pieces, once the gateway has asked
for it: `Expect: 100-continue` says when that is.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from served import PATIENCE, Model, Reply, Served

from gateway.access import keys
from gateway.errors import HTTPError, InvalidOutput, ModelError, Unavailable
from gateway.hookspecs import hookimpl
from gateway.http.routes.fast_predict import FastPredict
from gateway.http.routes.predict import Predict
from gateway.settings.schema import ModelSettings

FAST, SLOW = "fast", "slow"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OURS = ("date", "server-timing", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")  # differ with time
KEY: dict[str, str] = {}  # what stands for a name of a key in the headers of a case


@dataclass(frozen=True)
class Case:
    """A request and the status of its answer. `{way}` in its path is the way that it takes."""

    what: str
    status: int
    path: str = "/models/m/predict"
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    is_broken: bool = False  # its answer ends before its end
    key: str = "all"


def says(what: str, status: int, **more: Any) -> Case:
    """One whose answer the script below has under its name."""
    return Case(what, status, body=json.dumps(what).encode(), **more)


CASES = (
    says("a value", 200),
    says("nothing", 200),
    says("much", 200),
    says("a status", 207),
    says("no content", 204),
    says("a response", 207),
    says("a response without a type", 200),
    says("a response that has headers of ours", 200),
    says("a stream", 200),
    says("an empty stream", 200),
    says("a stream that breaks off", 200, is_broken=True),
    says("an error of the model", 500),
    says("an error with a status", 422),
    says("an error with headers", 503),
    says("nonsense", 500),
    says("a broken script", 500),
    says("silence", 504, headers={"x-request-timeout": "1"}),
    Case("a timeout that is none", 400, headers={"x-request-timeout": "soon"}),
    Case("the other spelling", 200, "/v1/models/m:predict", b'"a value"'),
    Case("the binary spelling", 200, "/v1/models/m:predict_binary", b'"a value"'),
    Case("an alias of the only one", 404, "/v1/models/model:predict"),
    Case("no body", 200, body=b""),
    Case("an unknown model", 404, "/models/none/predict"),
    Case("a body that is too large", 413, "/models/small/predict", b"x" * 65),
    Case("a body that is just not too large", 200, "/models/small/predict", b"x" * 64),
    Case("a packed body", 415, headers={"content-encoding": "gzip"}),
    Case("no key", 401, key=""),
    Case("a wrong key", 401, key="wrong"),
    Case("a key without the scope", 403, key="metrics"),
    Case("a key that does not see the model", 404, key="blind"),
    Case("a key with a rate", 200, key="rated"),
    Case("a key that has used its rate up", 429, key="used"),
    Case("a foreign origin", 403, headers={"origin": "https://evil.example"}),
    Case("an allowed origin", 200, headers={"origin": "https://app.example"}),
    Case("another host", 421, headers={"host": "evil.example"}),
    Case("an answer for clients of Truss", 200, body=b'"a value"', headers={"accept": "application/json"}),
    Case("a strict model", 200, "/models/strict/predict", b'"a value"'),
    Case("an error of a strict model", 500, "/models/strict/predict", b'"an error of the model"'),
    Case("a stream of a strict model that breaks off", 200, "/models/strict/predict", b'"a stream that breaks off"',
         is_broken=True),
    Case("a model that failed", 503, "/models/failed/predict"),
    Case("a model that loads for it", 200, "/models/lazy-{way}/predict", b'"a value"'),
    Case("a full queue", 429, "/models/full/predict"),
    Case("a queue that moves too slowly", 503, "/models/held/predict"),
)  # fmt: skip


def value_of(what: str) -> Any:
    raw = {"content_type": "", "raw": True}
    return {
        "a value": lambda: b'"fine"',
        "nothing": lambda: b"",
        "much": lambda: b"x" * (3 << 20),
        "a status": lambda: Reply(b"{}", status=207),
        "no content": lambda: Reply(b"", status=204),
        "a response": lambda: Reply(b"by hand", 207, headers=(("x-own", "a"), ("content-type", "text/x")), **raw),
        "a response without a type": lambda: Reply(b"by hand", **raw),
        "a response that has headers of ours": lambda: Reply(
            b"x", headers=(("connection", "close"), ("nel", "x")), **raw
        ),
        "a stream": lambda: pieces([b"one", b"two" * 100_000, b"three"]),
        "an empty stream": lambda: pieces([]),
        "a stream that breaks off": lambda: pieces([b"one"], ModelError("no more")),
        "an error of the model": lambda: ModelError("no"),
        "an error with a status": lambda: HTTPError(422, "not like this", code="unlike"),
        "an error with headers": lambda: Unavailable("later", retry_after=7),
        "nonsense": lambda: InvalidOutput("what the model returned cannot be sent"),
        "a broken script": lambda: ZeroDivisionError("by zero"),
        "silence": asyncio.Event().wait,
    }[what]()


async def pieces(items: list[bytes], end: Exception | None = None) -> Any:
    for item in items:
        yield item
    if end is not None:
        raise end


def script(body: bytes) -> Any:
    try:
        value = value_of(json.loads(body))
    except (KeyError, TypeError, ValueError):
        return b'"fine"'
    if isinstance(value, Exception):
        raise value
    return value


def models() -> dict[str, Model]:
    plain = {name: Model({"predict": script}) for name in ("m", "other", f"lazy-{FAST}", f"lazy-{SLOW}")}
    return plain | {
        "small": Model({"predict": script}, limits={"max_body": 64}),
        "strict": Model({"predict": script}, parity="strict"),
        "failed": Model({"predict": script}, loads=[ValueError("no weights")]),
        "full": Model({"predict": forever}, limits={"slots": 1, "max_queue": 0}),
        "held": Model({"predict": forever}, limits={"slots": 1, "queue_timeout": 0.05}),
    }


async def forever(body: bytes) -> Any:
    await asyncio.Event().wait()


class Both:
    """A gateway, what plugins were told of its calls, and which way each took."""

    def __init__(self, served: Served, records: list[Mapping[str, Any]], taken: list[str]) -> None:
        self.served, self.records, self.taken = served, records, taken

    def ask(self, case: Case, way: str) -> dict[str, Any]:
        """All that a client sees of the answer, what plugins were told of it, and the way that it took."""
        self.records.clear()
        self.taken.clear()
        with self._sent(case, way) as sock:
            response = http.client.HTTPResponse(sock, method="POST")
            response.begin()
            is_broken = False
            try:
                body = response.read()
            except http.client.IncompleteRead as error:
                body, is_broken = error.partial, True
        headers = [(name.lower(), "*" if name.lower() in OURS else value) for name, value in response.getheaders()]
        seen = {"status": response.status, "headers": sorted(headers), "body": body, "is_broken": is_broken}
        return seen | {"told": self._told(case, way), "way": self.taken[:]}

    def _told(self, case: Case, way: str) -> list[dict[str, Any]]:
        """What is told of calls; of a request that never came to a model, nothing is."""
        self.served.do(lambda: None)
        if case.status not in (401, 403, 404, 421):
            self.served.wait_until(lambda: bool(self.records))
        return [_timeless({**record, "model": record["model"].replace(way, "{way}")}) for record in self.records]

    def _sent(self, case: Case, way: str) -> socket.socket:
        headers = {"host": "localhost", "connection": "close", "x-request-id": "mine", **case.headers}
        headers["content-length"] = str(len(case.body))
        if case.key:
            headers["x-api-key"] = KEY.get(case.key, case.key)
        if way == SLOW:
            headers["expect"] = "100-continue"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {case.path.format(way=way)} HTTP/1.1\r\n{lines}\r\n".encode()
        sock = socket.create_connection(("127.0.0.1", self.served.port), timeout=PATIENCE)
        if way == FAST:
            sock.sendall(head + case.body)
            return sock
        sock.sendall(head)
        if case.body and sock.recv(len(CONTINUE), socket.MSG_PEEK | socket.MSG_WAITALL) == CONTINUE:
            sock.recv(len(CONTINUE), socket.MSG_WAITALL)
            sock.sendall(case.body[:1])
            sock.sendall(case.body[1:])
        return sock


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    _write_keys(file)
    records: list[Mapping[str, Any]] = []
    taken: list[str] = []
    observer = ModuleType("observer")
    observer.call_finished = hookimpl(lambda record: records.append(record))  # type: ignore[attr-defined]
    lazy = {name: ModelSettings(load="lazy") for name in (f"lazy-{FAST}", f"lazy-{SLOW}")}
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for cls, name, way in ((FastPredict, "_call", FAST), (Predict, "__call__", SLOW)):
            patch.setattr(cls, name, _noted(getattr(cls, name), taken, way))
        settings = {"keys_file": file, "allowed_origins": ("https://app.example",)}
        served = stack.enter_context(Served(models(), plugins=[observer], tables=lazy, **settings))
        served.do(served.keys.reload())
        for name in ("full", "held"):
            stack.enter_context(_occupied(served, name))
        yield Both(served, records, taken)


def _timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("duration", "queue")}


def _noted(method: Callable[..., Any], taken: list[str], way: str) -> Callable[..., Any]:
    def noted(*args: Any) -> Any:
        taken.append(way)
        return method(*args)

    return noted


def _write_keys(file: Path) -> None:
    fields: dict[str, dict[str, Any]] = {
        "all": {},
        "metrics": {"scopes": ("metrics",)},
        "blind": {"models": ("nothing-*",)},
        "rated": {"rpm": 1000},
        "used": {"rpm": 1},
    }
    made = {name: keys.create(name, **limits) for name, limits in fields.items()}
    keys.write(file, [key for key, _ in made.values()])
    KEY.update({name: text for name, (_, text) in made.items()})


def _occupied(served: Served, name: str) -> socket.socket:
    """The only slot of a model, for as long as the connection is open."""
    sock = socket.create_connection(("127.0.0.1", served.port))
    head = f"POST /models/{name}/predict HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY['all']}\r\n"
    sock.sendall(f"{head}content-length: 0\r\n\r\n".encode())
    assert served.models[name].begun.acquire(timeout=PATIENCE)
    return sock


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_predict_is_answered_alike_whichever_way_it_takes(both: Both, case: Case) -> None:
    if case.key == "used":
        both.ask(case, FAST)
    fast, slow = both.ask(case, FAST), both.ask(case, SLOW)
    assert (fast["status"], fast["is_broken"]) == (case.status, case.is_broken)
    ways = fast.pop("way"), slow.pop("way")
    assert ways in (([FAST], [SLOW if case.body else FAST]), ([], []))
    assert fast == slow


def test_a_client_that_leaves_is_told_of_alike_whichever_way_its_predict_takes(both: Both) -> None:
    told = []
    for way in (FAST, SLOW):
        both.records.clear()
        sock = both._sent(says("silence", 499), way)
        assert both.served.models["m"].begun.acquire(timeout=PATIENCE)
        both.served.wait_until(lambda: both.served.hub.catalog.models["m"].limiter.running == 1)
        sock.close()
        both.served.wait_until(lambda: bool(both.records))
        told.append(_timeless(both.records[0]))
        assert both.served.models["m"].stopped.acquire(timeout=PATIENCE)
    assert told[0] == told[1] and told[0]["outcome"] == "client_left"
