"""Real workers for tests: a model directory of a few lines, its process, its log, its calls."""

from __future__ import annotations

import asyncio
import json
import os
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.runners.call import Call
from gateway.runners.process import ProcessReplica
from gateway.runners.question import about_health
from gateway.runners.replica import Launch
from gateway.spec import Limits, ModelSpec
from gateway.wire.frames import BYTES, DATA, Req, Resp
from gateway.wire.values import encode

# A model that does as it is told. Nothing in it imports more than Python has.
KITCHEN = """
    import asyncio, os, sys, threading, time

    class Model:
        def __init__(self, secrets, data_dir):
            self.secrets, self.data_dir, self.events, self.made = secrets, data_dir, [], 0
            self.open = threading.Event()

        def predict(self, x): return x
        def told(self, x): events, self.events = self.events, []; return events
        def let_go(self, x): self.open.set()
        def look(self, x):
            return {"cwd": os.getcwd(), "environ": dict(os.environ), "modules": sorted(sys.modules), "path": sys.path,
                    "pid": os.getpid(), "group": os.getpgid(0), "data_dir": str(self.data_dir), "argv": sys.argv,
                    "nice": open("/proc/self/oom_score_adj").read().strip()}
        def secret(self, name): return self.secrets.get(name)
        def blob(self, n): return b"x" * n
        def size(self, blob): return len(blob)
        def say(self, text): print(text); os.write(2, b"from the other stream\\n")
        def block(self, x):
            self.events.append("blocked"); print("blocked", x)
            self.open.wait(); self.open.clear()
            self.events.append("went on")
            return "late"
        async def wait(self, x):
            print("waiting", x)
            try: await asyncio.sleep(3600)
            except asyncio.CancelledError: self.events.append("cancelled"); raise
        def count(self, n):
            thread = threading.get_ident()
            try:
                for number in range(n):
                    self.made = number + 1
                    yield f"item {number}"
            finally: self.events.append(["closed", threading.get_ident() == thread])
        async def acount(self, n):
            try:
                for number in range(n):
                    self.made = number + 1
                    yield f"item {number}"
            finally: self.events.append(["closed", True])
        async def slowly(self, n):
            try:
                for number in range(n):
                    yield number
                    await asyncio.sleep(0.001 if number else 3600)
            finally: self.events.append("closed slowly")
        def produced(self, x): return self.made
        def fail(self, text): raise ValueError(text)
        def fail_late(self, x):
            yield "one"
            raise ValueError("late")
        def http(self, x):
            error = Exception("HTTP")
            error.status_code, error.detail, error.headers = 422, {"field": "bad"}, {"x-why": "because"}
            raise error
        def die(self, how):
            if how == "exit": os._exit(3)
            os.kill(os.getpid(), getattr(__import__("signal"), how))
        def die_streaming(self, x):
            yield "one"
            self.open.wait()
            os._exit(7)
    """
METHODS = tuple(
    "told let_go look secret blob size say block wait count acount slowly produced fail fail_late http die "
    "die_streaming".split()
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return root


class Log:
    """The lines of a worker, and somebody who waits for one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = asyncio.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self._changed.set()

    async def find(self, text: str) -> str:
        while True:
            for line in self.lines:
                if text in line:
                    return line
            self._changed.clear()
            await self._changed.wait()


class Started:
    """A replica and a way to talk to it without a gateway around."""

    def __init__(self, root: Path, endpoints: tuple[str, ...] = (), **launch: Any) -> None:
        spec = {"name": "m", "target": "model.model:Model", "root": root, "format": "truss", "data_dir": root / "data"}
        spec["own_code"] = True
        spec.update(launch.pop("spec", {}))
        spec.setdefault("limits", Limits(slots=launch.pop("slots", 1)))
        self.log = Log()
        self.guarded: set[int] = set()
        self.launch = Launch(
            spec=ModelSpec(**spec),
            index=0,
            endpoint_methods=endpoints,
            on_log=self.log,
            guard=lambda pid, mark: self.guarded.add(pid),
            unguard=self.guarded.remove,
            **launch,
        )
        self.replica = ProcessReplica(self.launch)
        self.ended: list[Call] = []

    def open(self, method: str, value: Any = None, **head: Any) -> Call:
        mode = BYTES if method == "predict" else DATA
        defaults = {"method": method, "mode": mode, "stream": False, "content_type": "", "request_id": "r"}
        req = Req(**{**defaults, **head})
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        body = encode(value) if req.mode == DATA else raw
        call = Call(req, body, self.launch.spec.limits, asyncio.get_running_loop())
        self.replica.open(call, self.ended.append)
        return call

    async def ask(self, method: str, value: Any = None, **head: Any) -> Any:
        """The decoded answer of a whole call."""
        with self.open(method, value, **head) as call:
            return body_of(call, await call.first())

    async def is_healthy(self) -> bool | None:
        """What the model's own check says."""
        with about_health(self.launch.spec.limits) as question:
            self.replica.ask(question)
            return await question.answer()

    async def read(self, call: Call) -> list[Any]:
        """All items of a stream."""
        await call.first()
        found = []
        while (items := await call.take()) is not None:
            found += items
        return found

    async def over(self, call: Call) -> None:
        """Wait until the worker has said that the code of a cancelled call has stopped."""
        while not call.ended:
            call._future = asyncio.get_running_loop().create_future()
            await call._future


def body_of(call: Call, head: Resp) -> Any:
    return call.reply if head.raw or head.kind == DATA else json.loads(call.reply)


@asynccontextmanager
async def started(root: Path, source: str = "", *endpoints: str, **launch: Any) -> AsyncIterator[Started]:
    """A worker that is ready; it is killed at the end."""
    if source:
        write(root, {"model/model.py": source})
    found = Started(root, endpoints, **launch)
    try:
        await found.replica.start()
        yield found
    finally:
        await found.replica.kill("the test is over")
        assert found.guarded == set()


async def gone(pid: int) -> None:
    """Wait for the end of a process that need not be ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def until(condition: Callable[[], bool]) -> None:
    """For what nobody is told of."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)
