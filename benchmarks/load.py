"""Load on a server, from a process of its own: raw sockets under uvloop, closed loop, no pipelining.

    python -m benchmarks.load '{"port": 8000, "path": "/", "body": "{}", "connections": 64, "seconds": 2}'

With - the load is read from stdin: an argument holds no body of a megabyte.

A request costs this client about a tenth of what it costs a Python server, so that any machine can do without wrk.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import uvloop

from .processes import ROOT, cpu_seconds, descendants

LAST_ANSWERS = 30.0  # seconds for those under way when the time is over


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`requests` of each connection when given, else `seconds` of them after `warmup`."""

    port: int
    path: str
    body: str
    pid: int = 0  # whose CPU time is read at the beginning and at the end
    everyone: bool = False  # and that of all processes that it has started, and they
    connections: int = 1
    requests: int = 0
    seconds: float = 2.0
    warmup: float = 0.3
    pause: float = 0.0  # seconds between an answer and the next request


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    requests: int
    seconds: float
    cpu: float  # seconds of `pid`, or of `everyone`
    p50: float  # milliseconds
    p99: float
    events: int  # blank-line ends: server-sent events

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU microseconds a request."""
        return self.cpu / self.requests * 1e6


def drive(load: Load) -> Seen:
    """Run the load in a child process."""
    command = [sys.executable, "-m", "benchmarks.load", "-"]
    done = subprocess.run(
        command, cwd=ROOT, input=json.dumps(asdict(load)), capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise RuntimeError(f"the load on {load.path} failed: {done.stderr.strip()[-1000:]}")
    return Seen(**json.loads(done.stdout))


class Client(asyncio.Protocol):
    """One connection: sends a request, waits for all of its answer, sends the next."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._answer = bytearray()
        self._size = 0  # of the last whole answer: most are alike, and come in one read
        self._left = run.load.requests or -1
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        if len(data) == self._size and not self._answer and data.startswith(b"HTTP/1.1 200"):
            self._ended(0)
            return
        self._answer += data
        head = self._answer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = self._answer[:head].lower().find(b"content-length: ") if head < 4096 else -1
        if length >= 0:
            size = head + 4 + int(self._answer[length + 16 : self._answer.find(b"\r", length)])
            if len(self._answer) < size:
                return
            self._size = size
        elif not self._answer.endswith(b"0\r\n\r\n"):
            return
        answer, self._answer = self._answer, bytearray()
        if not answer.startswith(b"HTTP/1.1 200"):
            self._run.fail(bytes(answer[:500]).decode(errors="replace"))
        else:
            self._ended(answer.count(b"\n\n"))

    def _ended(self, events: int) -> None:
        run = self._run
        run.answered(time.perf_counter() - self._started, events)
        self._left -= 1
        if not self._left or run.stopping:
            run.connection_done()
        elif run.load.pause:
            run.loop.call_later(run.load.pause, self._send)
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._run.done.done():
            self._run.fail(f"the server closed the connection ({exc})")


class Run:
    def __init__(self, load: Load, loop: asyncio.AbstractEventLoop) -> None:
        self.load, self.loop = load, loop
        body = load.body.encode()
        self.request = (
            b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        ) % (load.path.encode(), len(body), body)
        self.done: asyncio.Future[None] = loop.create_future()
        self._times: list[float] = []
        self._events = 0
        self._open = load.connections
        self._pids = [load.pid] * bool(load.pid) + (descendants(load.pid) if load.everyone else [])
        self.stopping = False

    def answered(self, seconds: float, events: int) -> None:
        self._times.append(seconds)
        self._events += events

    def connection_done(self) -> None:
        self._open -= 1
        if not self._open:
            self.done.set_result(None)

    def fail(self, text: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(text))

    async def measure(self) -> Seen:
        load = self.load
        if load.requests:
            cpu, began = self._cpu(), time.perf_counter()
            await self._connect()
            await self.done
        else:
            await self._connect()
            await self._wait(load.warmup)
            self._times.clear()
            self._events = 0
            cpu, began = self._cpu(), time.perf_counter()
            await self._wait(load.seconds)
        cpu, took = self._cpu() - cpu, time.perf_counter() - began
        times, events = sorted(self._times), self._events
        if not times:
            raise RuntimeError(f"no request was answered in {took:.1f} s")
        self.stopping = True
        await self._wait(LAST_ANSWERS)  # a client that hangs up is another test
        p50, p99 = (times[int(len(times) * part)] * 1e3 for part in (0.5, 0.99))
        return Seen(requests=len(times), seconds=took, cpu=cpu, p50=p50, p99=p99, events=events)

    def _cpu(self) -> float:
        return cpu_seconds(*self._pids)

    async def _connect(self) -> None:
        for _ in range(self.load.connections):
            await self.loop.create_connection(lambda: Client(self), "127.0.0.1", self.load.port)

    async def _wait(self, seconds: float) -> None:
        """Let the load run; an error ends the wait."""
        done, _ = await asyncio.wait([self.done], timeout=seconds)
        for future in done:
            future.result()


async def _main(load: Load) -> Seen:
    return await Run(load, asyncio.get_running_loop()).measure()


if __name__ == "__main__":
    gc.disable()
    given = sys.stdin.read() if sys.argv[1] == "-" else sys.argv[1]
    print(json.dumps(asdict(uvloop.run(_main(Load(**json.loads(given)))))))
