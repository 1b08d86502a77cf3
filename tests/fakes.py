"""What the tests of several modules share: a clock that nobody waits for, a replica that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hypothesis import HealthCheck, settings

from gateway.errors import Crashed, GatewayError
from gateway.runners.call import Call
from gateway.runners.pending import NEVER, Pending
from gateway.runners.question import Question
from gateway.runners.replica import Launch, LoadError
from gateway.spec import Capabilities, MethodInfo, ModelSpec
from gateway.wire.frames import BYTES, DATA, Req, Resp
from gateway.wire.values import decode, encode

# A busy machine makes an example slow, not wrong.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

METHODS = (MethodInfo(name="predict", kind="sync"), MethodInfo(name="chat_completions", kind="generator"))


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer as soon as there is nothing else to do: hours pass in no time."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready:
            live = [timer for timer in self._scheduled if not timer.cancelled()]
            if live:
                self._now = max(self._now, min(timer.when() for timer in live))
            elif not self._stopping:
                raise RuntimeError("nothing will ever happen again: the test waits for something that cannot come")
        super()._run_once()


async def turns(n: int = 5) -> None:
    """Let everything that is ready run, without letting time pass."""
    for _ in range(n):
        await asyncio.sleep(0)


def predict(**changes: Any) -> Req:
    return Req(
        **{"method": "predict", "mode": BYTES, "stream": False, "content_type": "", "request_id": "r", **changes}
    )


def chat(**changes: Any) -> Req:
    return predict(method="chat_completions", mode=DATA, stream=True, **changes)


class FakeReplica:
    """A replica without a process. The test plays the model: `answer`, `stream`, `say`, `end`, `fail`, `die`.

    A call or a question that is cancelled ends at once unless `is_obedient` is false. `load` says how its start goes.
    """

    def __init__(self, launch: Launch, fakes: Fakes) -> None:
        self.launch, self.fakes = launch, fakes
        self.capabilities = Capabilities()
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.pid: int | None = None
        self.last_ping = NEVER  # a test may let it fall silent
        self.open_calls: list[Call] = []
        self.open_questions: list[Question[Any]] = []
        self.cancelled: list[Pending] = []
        self.granted: list[tuple[int, int]] = []
        self.updates: list[tuple[Mapping[str, str] | None, Mapping[str, Any] | None]] = []
        self.killed: list[str] = []
        self.stopped: list[float] = []
        self.is_obedient = True
        self.open_error: Exception | None = None
        self._ended: dict[int, Callable[[Call], None]] = {}

    # ── Replica ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> Capabilities:
        try:
            await self.fakes.load(self)
        except BaseException:
            await self.kill("the load was given up")
            raise
        self.pid = 5_000_000 + len(self.fakes.replicas)
        self.capabilities = self.fakes.capabilities
        return self.capabilities

    def open(self, call: Call, ended: Callable[[Call], None]) -> None:
        if self.open_error is not None:
            raise self.open_error
        if self.lost.done():
            raise ConnectionError("the replica is gone")
        call.opened(self, len(self._ended) + 1)
        self._ended[id(call)] = ended
        self.open_calls.append(call)
        self.fakes.opened.append(call)

    def ask(self, question: Question[Any]) -> None:
        if self.open_error is not None:
            raise self.open_error
        if self.lost.done():
            raise ConnectionError("the replica is gone")
        question.asked(self, len(self._ended) + 1)
        self.open_questions.append(question)
        self.fakes.asked.append(question)

    def calls(self) -> Iterator[Call]:
        return iter(tuple(self.open_calls))

    def pending(self) -> Iterator[Pending]:
        return iter((*self.open_calls, *self.open_questions))

    def cancel(self, pending: Pending) -> None:
        self.cancelled.append(pending)
        if self.is_obedient:
            asyncio.get_running_loop().call_soon(self.end, pending)

    def grant(self, call: Call) -> None:
        self.granted.append((call.owed, call.owed_size))
        call.owed = call.owed_size = 0

    async def stop(self, grace: float) -> None:
        self.stopped.append(grace)
        self.die("stopped")

    async def kill(self, reason: str) -> None:
        self.killed.append(reason)
        self.die(reason)

    async def scrape(self) -> bytes:
        return b""

    async def owns(self, client_port: int, server_port: int) -> bool:
        return False

    def update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        self.updates.append((secrets, deployment))

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, call: Call, body: bytes = b"{}", **head: Any) -> None:
        """A whole answer, the last word of its call."""
        defaults = {"status": 200, "kind": call.req.mode, "stream": False, "final": True, "content_type": ""}
        call.on_resp(Resp(**{**defaults, **head}), body if call.req.mode == BYTES else decode(encode(body)))
        self._leave(call)

    def stream(self, call: Call, *items: Any) -> None:
        """The head of a stream if it is not there yet, and items."""
        if call.head is None:
            call.on_resp(Resp(200, call.req.mode, True, False, ""), b"")
        if items:
            call.on_items(list(items), sum(len(encode(item)) for item in items))

    def say(self, question: Question[Any], value: Any) -> None:
        """The answer to a question, as plain data."""
        question.on_answer(encode(value))
        self._leave(question)

    def end(self, pending: Pending) -> None:
        if pending in self.pending():
            pending.on_end()
            self._leave(pending)

    def fail(self, pending: Pending, error: GatewayError) -> None:
        pending.on_error(error)
        self._leave(pending)

    def die(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        for pending in self.pending():
            self.fail(pending, Crashed("the worker was lost while it ran this call", should_retry=False))

    def _leave(self, pending: Pending) -> None:
        if isinstance(pending, Call):
            self.open_calls.remove(pending)
            self._ended.pop(id(pending))(pending)
        else:
            self.open_questions = [each for each in self.open_questions if each is not pending]


class Fakes:
    """A runner of fake replicas; remembers all of them. `loads` are the outcomes of the next starts.

    An outcome is None (good), an exception, seconds that it takes, or an event that it waits for.
    """

    def __init__(self, *loads: Any, capabilities: Capabilities | None = None) -> None:
        self.loads = list(loads)
        self.capabilities = capabilities or Capabilities(methods=METHODS)
        self.replicas: list[FakeReplica] = []
        self.opened: list[Call] = []
        self.asked: list[Question[Any]] = []

    def __call__(self, launch: Launch) -> FakeReplica:
        self.replicas.append(FakeReplica(launch, self))
        return self.replicas[-1]

    async def load(self, replica: FakeReplica) -> None:
        outcome = self.loads.pop(0) if self.loads else None
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, int | float):
            await asyncio.sleep(outcome)
        elif isinstance(outcome, asyncio.Event):
            await outcome.wait()

    @property
    def last(self) -> FakeReplica:
        return self.replicas[-1]


def launch_of(spec: ModelSpec, index: int) -> Launch:
    return Launch(spec=spec, index=index, on_log=lambda line: None)


__all__ = ["PATIENT", "FakeReplica", "Fakes", "LoadError", "VirtualLoop", "chat", "launch_of", "predict", "turns"]
