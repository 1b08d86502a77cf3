"""Slots, queues, hooks, and what becomes of a call whose client leaves. The models wait for files, never for time."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .trusses import Trusses, chunks

COMMON = """
import asyncio, pathlib, threading, time

SHARED = pathlib.Path("../../shared")

def wait(name):
    for _ in range(4000):
        if (SHARED / name).exists():
            return
        time.sleep(0.005)
    raise TimeoutError(name)

async def await_file(name):
    while not (SHARED / name).exists():
        await asyncio.sleep(0.005)

def tell(name, text):
    (SHARED / f"{name}.tmp").write_text(text)
    (SHARED / f"{name}.tmp").rename(SHARED / name)
"""
PEAK = (
    COMMON
    + """
class Model:
    running = peak = 0
    lock = threading.Lock()
    order = []

    def work(self):
        with self.lock:
            self.running += 1
            self.peak = max(self.peak, self.running)
        time.sleep(0.02)
        with self.lock:
            self.running -= 1

    def predict(self, name):
        self.order.append(name)
        self.work()
        return [self.peak, self.order]

    def chat_completions(self, body):
        self.work()
        return str(self.peak)
"""
)
# Answers only when as many as it has slots are in it at the same time.
MEET = """
import asyncio, threading

class Model:
    def __init__(self):
        self.barrier = threading.Barrier(3)

    def predict(self, _):
        self.barrier.wait(60)
        return "met"
"""
ASYNC_MEET = """
import asyncio

class Model:
    inside = 0

    async def predict(self, _):
        self.inside += 1
        while self.inside < 3:
            await asyncio.sleep(0.001)
        return "met"
"""
HOOKS = """
import threading

class Model:
    def __init__(self):
        self.before, self.after = threading.Barrier(3), threading.Barrier(3)
        self.running = self.peak = 0

    def preprocess(self, x):
        self.before.wait(60)
        return x

    def predict(self, x):
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.running -= 1
        return x

    def postprocess(self, x):
        self.after.wait(60)
        return [x, self.peak]
"""
# Stays where it is until the test says go; holds a slot meanwhile.
HOLD = (
    COMMON
    + """
class Model:
    ran = []

    def predict(self, inputs):
        name = inputs["name"]
        self.ran.append(name)
        tell(f"{name}.begun", "yes")
        if "go" in inputs:
            wait(inputs["go"])
        return self.ran
"""
)
STREAMS = (
    COMMON
    + """
from starlette.requests import Request
from starlette.responses import StreamingResponse

class Model:
    def predict(self, inputs, request: Request):
        return getattr(self, inputs["do"])(inputs.get("name"), request)

    def nothing(self, name, request):
        return "nothing"

    def endless(self, name, request):
        threads = {threading.get_ident()}
        try:
            while True:
                threads.add(threading.get_ident())
                yield "x"
                time.sleep(0.002)
        finally:
            threads.add(threading.get_ident())
            tell(name, f"closed on {len(threads)} thread")

    async def aendless(self, name, request):
        try:
            while True:
                yield "x"
                await asyncio.sleep(0.002)
        finally:
            tell(name, "closed")

    async def stuck(self, name, request):
        try:
            yield "x"
            await asyncio.Event().wait()
        finally:
            tell(name, "closed")

    async def astuck(self, name, request):
        try:
            tell(name + ".begun", "yes")  # not before: a coroutine that never began is closed without its finally
            await asyncio.Event().wait()
        finally:
            tell(name, "cancelled")

    def coroutine(self, name, request):
        return self.astuck(name, request)

    def watching(self, name, request):
        with request.state.watch_disconnect() as gone:
            tell(name + ".begun", "yes")
            seen = gone.wait(60)
        tell(name, f"left: {seen}")

    def response(self, name, request):
        return StreamingResponse(self.aendless(name, request))

    def gated(self, name, request):
        yield "x"
        wait(name)
        yield "y"
"""
)
SILENT_TAIL = """
import asyncio, pathlib

class Model:
    def predict(self, name):
        return name

    async def postprocess(self, name):
        try:
            yield "x"
            await asyncio.Event().wait()
        finally:
            (pathlib.Path("../../shared") / name).write_text("closed")
"""
LARGE = """
import threading

class Model:
    made = 0

    def predict(self, what):
        if what == "made":
            return self.made
        return self.stream()

    def stream(self):
        for _ in range(3200):
            self.made += 1
            yield b"x" * 65536
"""
BLOCKED = (
    COMMON
    + """
class Model:
    def predict(self, name):
        wait(name)
        return "done"

    def is_healthy(self):
        return True
"""
)


def slots(count: int, more: str = "") -> str:
    return f"runtime: {{predict_concurrency: {count}{more}}}\n"


TRUSSES = {
    "peak": {"config.yaml": "", "model/model.py": PEAK},
    "meet": {"config.yaml": slots(3), "model/model.py": MEET},
    "async-meet": {"config.yaml": slots(3), "model/model.py": ASYNC_MEET},
    "hooks": {"config.yaml": "", "model/model.py": HOOKS},
    "hold": {"config.yaml": "", "model/model.py": HOLD},
    "narrow": {"config.yaml": "", "model/model.py": HOLD},
    "streams": {"config.yaml": "", "model/model.py": STREAMS},
    "impatient": {"config.yaml": slots(1, ", streaming_read_timeout: 1"), "model/model.py": STREAMS},
    "silent-tail": {"config.yaml": slots(1, ", streaming_read_timeout: 1"), "model/model.py": SILENT_TAIL},
    "first-item": {"config.yaml": "", "model/model.py": STREAMS},
    "large": {"config.yaml": slots(2), "model/model.py": LARGE},
    "blocked": {"config.yaml": slots(50), "model/model.py": BLOCKED},
}
SETTINGS = "[models.narrow]\nmax_queue = 1\n[models.first-item]\nfirst_item_timeout = 1\nrequest_timeout = 1\n"


def chat(truss: Trusses, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    answer = truss.ask("POST", "/v1/chat/completions", json.dumps(body).encode())
    return str(json.loads(answer.body)["choices"][0]["message"]["content"])


def send(truss: Trusses, model: str, inputs: Any) -> http.client.HTTPConnection:
    """A predict whose answer nobody has asked for yet."""
    connection = truss.connect()
    connection.request("POST", f"/v1/models/{model}:predict", json.dumps(inputs).encode())
    return connection


def value_of(connection: http.client.HTTPConnection) -> Any:
    with connection.getresponse() as response:
        body = response.read()
    connection.close()
    return json.loads(body)


def leave(connection: http.client.HTTPConnection) -> None:
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


# ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_by_default_one_predict_runs_at_a_time(truss: Trusses) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: truss.call("peak", n), range(4)))
    assert max(peak for peak, _ in answers) == 1


def test_the_openai_methods_take_slots_too(truss: Trusses) -> None:
    with ThreadPoolExecutor(4) as pool:
        peaks = list(pool.map(lambda call: call(), [lambda: chat(truss, "peak")] * 3))
    assert peaks == ["1", "1", "1"]


@pytest.mark.parametrize("model", ["meet", "async-meet"])
def test_as_many_run_at_once_as_predict_concurrency_says(truss: Trusses, model: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda n: truss.call(model, n), range(3))) == ["met"] * 3


def test_only_predict_takes_the_slot_of_the_three_steps(truss: Trusses) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda n: truss.call("hooks", n), range(3)))
    assert sorted(answers) == [[0, 1], [1, 1], [2, 1]]


def test_calls_run_in_the_order_they_came(truss: Trusses) -> None:
    first = send(truss, "hold", {"name": "first", "go": "hold.go"})
    truss.wait_for_file("first.begun")
    waiting = []
    for name in ("second", "third", "fourth"):
        waiting.append(send(truss, "hold", {"name": name}))
        wait_queued(truss, "hold", len(waiting))
    truss.file("hold.go").touch()
    assert value_of(first) == ["first"]
    assert [value_of(connection) for connection in waiting][-1] == ["first", "second", "third", "fourth"]


def wait_queued(truss: Trusses, model: str, count: int) -> None:
    """Return when so many calls of a model wait for a slot."""
    wait_counted(truss, "gateway_requests_queued", model, count)


def wait_counted(truss: Trusses, gauge: str, model: str, count: int) -> None:
    start, waited = f'{gauge}{{model="{model}"}} ', threading.Event()
    for _ in range(5000):
        lines = truss.get("/metrics").body.decode().splitlines()
        if any(float(line.removeprefix(start)) == count for line in lines if line.startswith(start)):
            return
        waited.wait(0.01)
    raise TimeoutError(f"{gauge} of {model} was never {count}")


def test_a_call_beyond_slots_and_queue_is_429(truss: Trusses) -> None:
    running = send(truss, "narrow", {"name": "running", "go": "narrow.go"})
    truss.wait_for_file("running.begun")
    queued = send(truss, "narrow", {"name": "queued"})
    wait_queued(truss, "narrow", 1)

    answer = truss.predict("narrow", b'{"name": "refused"}')
    status, code, message = answer.error
    assert (status, code) == (429, "600")
    assert "narrow" in message
    assert int(answer.headers["retry-after"]) >= 1

    truss.file("narrow.go").touch()
    assert value_of(running) == ["running"]
    assert value_of(queued) == ["running", "queued"]


def test_a_stream_holds_its_slot_until_it_has_ended(truss: Trusses) -> None:
    with truss.streaming("streams", {"do": "gated", "name": "gated.go"}) as response:
        assert response.read(1) == b"x"
        following = send(truss, "streams", {"do": "nothing"})
        wait_queued(truss, "streams", 1)
        truss.file("gated.go").touch()
        assert response.read() == b"y"
    assert value_of(following) == "nothing"


def test_fifty_blocked_predicts_starve_neither_liveness_nor_health_checks(truss: Trusses) -> None:
    with ThreadPoolExecutor(50) as pool:
        calls = [pool.submit(truss.call, "blocked", "blocked.go") for _ in range(50)]
        try:
            wait_counted(truss, "gateway_requests_in_flight", "blocked", 50)
            assert truss.get("/").body == b"true"
            assert truss.get("/livez").status == 200
            assert truss.get("/v1/models/blocked").status == 200
        finally:
            truss.file("blocked.go").touch()
        assert {call.result() for call in calls} == {"done"}


# ── the client leaves ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("do", "told"),
    [
        ("endless", "closed on 1 thread"),
        ("aendless", "closed"),
        ("stuck", "closed"),
        ("response", "closed"),
    ],
)
def test_a_stream_whose_client_leaves_is_closed_and_the_next_call_runs(truss: Trusses, do: str, told: str) -> None:
    with truss.streaming("streams", {"do": do, "name": f"left {do}"}) as response:
        assert response.read(1) == b"x"
    assert truss.wait_for_file(f"left {do}") == told
    assert truss.call("streams", {"do": "nothing"}) == "nothing"


@pytest.mark.parametrize(("do", "told"), [("coroutine", "cancelled"), ("watching", "left: True")])
def test_code_whose_client_leaves_is_cancelled_or_sees_it(truss: Trusses, do: str, told: str) -> None:
    connection = send(truss, "streams", {"do": do, "name": f"left {do}"})
    truss.wait_for_file(f"left {do}.begun")
    leave(connection)
    assert truss.wait_for_file(f"left {do}") == told
    assert truss.call("streams", {"do": "nothing"}) == "nothing"


def test_a_call_whose_client_leaves_while_it_waits_never_runs(truss: Trusses) -> None:
    running = send(truss, "hold", {"name": "holding", "go": "holding.go"})
    truss.wait_for_file("holding.begun")
    leaving = send(truss, "hold", {"name": "gone"})
    wait_queued(truss, "hold", 1)
    leave(leaving)
    wait_queued(truss, "hold", 0)
    truss.file("holding.go").touch()
    assert "gone" not in value_of(running)
    assert "gone" not in truss.call("hold", {"name": "after"})


# ── limits of streams ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_that_is_silent_for_too_long_is_broken_off_and_its_generator_closed(truss: Trusses) -> None:
    with truss.streaming("impatient", {"do": "stuck", "name": "impatient"}) as response:
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead) as broken:
            response.read()
    assert broken.value.partial == b"x"
    assert truss.wait_for_file("impatient") == "closed"
    assert truss.call("impatient", {"do": "nothing"}) == "nothing"


def test_a_stream_out_of_postprocess_has_the_same_limit(truss: Trusses) -> None:
    with truss.streaming("silent-tail", "tail") as response, pytest.raises(http.client.IncompleteRead) as broken:
        response.read()
    assert broken.value.partial == b"x"
    assert truss.wait_for_file("tail") == "closed"


def test_a_call_without_a_first_word_is_504_and_its_code_cancelled(truss: Trusses) -> None:
    answer = truss.predict("first-item", b'{"do": "coroutine", "name": "first-item"}')
    assert answer.error[:2] == (504, "600")
    assert truss.wait_for_file("first-item") == "cancelled"
    assert truss.call("first-item", {"do": "nothing"}) == "nothing"


def test_a_reader_that_stops_holds_the_generator_and_nobody_else(truss: Trusses) -> None:
    with truss.streaming("large", "stream") as response:
        assert response.read(1) == b"x"
        made = [truss.call("large", "made") for _ in range(50)][-1]
        assert made * 65536 < 32 * 1024 * 1024, "the rest waits for the reader"
        assert sum(map(len, chunks_after(response))) == 3200 * 65536 - 1


def chunks_after(response: http.client.HTTPResponse) -> list[bytes]:
    parts = []
    while part := response.read(1 << 20):
        parts.append(part)
    return parts


def test_what_is_yielded_at_once_may_share_a_chunk_but_never_loses_a_byte(truss: Trusses) -> None:
    with truss.streaming("large", "stream") as response:
        found = chunks(response)
    assert b"".join(found) == b"x" * 3200 * 65536
    assert all(len(chunk) % 65536 == 0 for chunk in found)
