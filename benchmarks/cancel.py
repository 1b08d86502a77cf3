"""Cancel: how soon a model's code notices that its client has hung up.

On every route that there is, streamed and whole. The model writes down time.monotonic() in its `finally`, the client
just before it closes; one machine, one clock. The tail is the scheduler's as much as ours, so it is compared with that
of a bare uvicorn app which waits for the same.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from typing import Any

from gateway.plugins import Plugins

from .processes import Server, floor, gateway
from .report import Row, at_most

LIMIT = 5.0  # milliseconds
BETWEEN_YIELDS = 0.001  # seconds that the sync generator computes between its yields; a part of what it takes
BARE = "bare uvicorn"
PATIENCE = 10.0  # seconds for what a call reports
CHAT = "/v1/chat/completions"
EDGE = "edge"  # of multipart bodies

# `seen` has the moment at which the code of a call began and that at which it noticed, as "begun 12" and "gone 12" for
# the number that stands in its request as "call-12".
COMMON = """
import asyncio, re, time

def note(seen, what, inputs):
    number = re.search(r"call-(\\d+)", repr(inputs))[1]
    seen[f"{what} {number}"] = time.monotonic()

async def tokens(seen, inputs):
    try:
        while True:
            yield "token "
            await asyncio.sleep(0.01)
    finally:
        note(seen, "gone", inputs)

async def wait(seen, inputs):
    if isinstance(inputs, dict) and inputs.get("stream"):
        return tokens(seen, inputs)
    note(seen, "begun", inputs)
    try:
        await asyncio.sleep(60)
    finally:
        note(seen, "gone", inputs)

class Model:
    def __init__(self):
        self.seen = {}
"""
PREDICT = """
    async def predict(self, inputs):
        return self.seen if inputs.get("report") else await wait(self.seen, inputs)
"""
GENERATOR = f"""
    def predict(self, inputs):
        return self.seen
    def chat_completions(self, inputs):
        note(self.seen, "begun", inputs)
        try:
            while True:
                yield "token "
                time.sleep({BETWEEN_YIELDS})
        finally:
            note(self.seen, "gone", inputs)
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to ask. `fields` are those of its body, without the number."""

    name: str
    model: str  # "" is the bare server
    path: str
    fields: dict[str, Any]
    form: bool = False

    @property
    def streams(self) -> bool:
        return bool(self.fields.get("stream"))

    def request(self, number: int) -> bytes:
        fields = {**self.fields, "user": f"call-{number}"}
        if "messages" in fields:  # all that a method gets which counts them
            fields["messages"] = [{"role": "user", "content": f"call-{number}"}]
        elif self.path.endswith("/input_tokens"):
            fields["input"] = f"call-{number}"
        body = _form(fields) if self.form else json.dumps(fields).encode()
        kind = f"multipart/form-data; boundary={EDGE}" if self.form else "application/json"
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _form(fields: dict[str, Any]) -> bytes:
    parts = [
        f'--{EDGE}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{str(value).lower()}\r\n'
        for name, value in fields.items()
    ]
    file = f'--{EDGE}\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--{EDGE}--\r\n'
    return ("".join(parts) + file).encode()


def run(quick: bool) -> list[Row]:
    times, rounds = (6, 1) if quick else (50, 5)
    plugins = Plugins.load()
    methods = dict.fromkeys(endpoint.method for endpoint in plugins.endpoints())
    waiting = [
        f"    async def {name}(self, inputs):\n        return await wait(self.seen, inputs)\n" for name in methods
    ]
    models = {"waits/model.py": COMMON + PREDICT + "".join(waiting), "gen/model.py": COMMON + GENERATOR}
    kinds = [*_first(), *_routes(plugins)]
    took: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    with gateway(models, "[models.waits]\nslots = 8\n[models.gen]\nslots = 8\n") as ours, floor("hangup") as bare:
        number = 1
        for _ in range(rounds):
            for kind in kinds:
                took[kind.name] += _delays(ours if kind.model else bare, kind, range(number, number + times))
                number += times
    bare_p99 = _p99(took.pop(BARE))
    rows = [at_most(f"client gone → {name} sees it ≤ {LIMIT:g} ms", each, LIMIT, "ms") for name, each in took.items()]
    p99 = _p99([delay for delays in took.values() for delay in delays])
    rows.append(Row("  p99 of all of these", f"{p99:.3g} ms", p99 / bare_p99, f"{BARE}, {bare_p99:.3g} ms"))
    return rows


def _first() -> list[Kind]:
    chat = {"model": "gen", "messages": []}
    generator = f"sync generator, a yield every {BETWEEN_YIELDS * 1000:g} ms"
    return [
        Kind(BARE, "", "/", {}),
        Kind("async predict", "waits", "/models/waits/predict", {}),
        Kind(f"{generator}, streamed", "gen", CHAT, {**chat, "stream": True}),
        Kind(f"{generator}, whole", "gen", CHAT, chat),
    ]


def _routes(plugins: Plugins) -> list[Kind]:
    """Every route of a dialect, by the example of its own documentation; streamed too where it streams."""
    dialects, kinds = plugins.dialects(), []
    for endpoint in (endpoint for endpoint in plugins.endpoints() if endpoint.verb == "POST"):
        dialect = dialects[endpoint.dialect]
        schema = dialect.request_schema
        fields = {**schema.get("example", {}), "model": "waits"}
        is_form = dialect.body == "form"
        if "stream" in schema.get("properties", {}):
            streamed = {**fields, "stream": True}
            kinds.append(Kind(f"{endpoint.path} streamed", "waits", endpoint.path, streamed, is_form))
        kinds.append(Kind(f"{endpoint.path} whole", "waits", endpoint.path, fields, is_form))
    return kinds


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _delays(server: Server, kind: Kind, numbers: range) -> list[float]:
    """Milliseconds from hanging up to the code's `finally`, in calls made one after the other."""
    gone = {}
    path = f"/models/{kind.model}/predict" if kind.model else kind.path
    for number in numbers:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(kind.request(number))
            if not kind.streams:  # the first item of a stream says that its code has begun
                _reported(server, path, f"begun {number}")
            elif (answer := client.recv(65536)) and not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{kind.name}: {answer.decode(errors='replace')}")
            time.sleep(0.02)
            gone[number] = time.monotonic()
    return [(_reported(server, path, f"gone {number}") - left) * 1000 for number, left in gone.items()]


def _reported(server: Server, path: str, what: str) -> float:
    """The moment of it, once it is there."""
    until = time.monotonic() + PATIENCE
    while what not in (notes := _report(server, path)):
        if time.monotonic() > until:
            raise RuntimeError(f"{path}: no call reported {what!r} for {PATIENCE:g} s")
        time.sleep(0.01)
    return notes[what]


def _report(server: Server, path: str) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", path, json.dumps({"report": True}))
    found: dict[str, float] = json.loads(connection.getresponse().read())
    connection.close()
    return found
