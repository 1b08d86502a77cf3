"""A replica without a process: each call is a task on the gateway's event loop.

For runners that forward calls, to a server elsewhere or to a program of their own. It implements the contract of
`replica.py`; a subclass says how to load, answer and unload. Do not use it for code that computes, which would block
every request of the gateway.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from .. import json_costs
from ..errors import (
    MODEL_RAISED,
    Crashed,
    GatewayError,
    InvalidJSON,
    InvalidOutput,
    ModelError,
    RouteNotSupported,
    TooLarge,
)
from ..spec import Capabilities
from ..wire.frames import BYTES, WINDOW_BYTES, WINDOW_ITEMS, Resp
from ..wire.values import decode, encode
from .call import Call
from .pending import Pending
from .question import Question
from .replica import Launch, LoadError

END_GRACE = 5.0  # seconds that a kill waits for cancelled code, and for `unload`
JSON, LINES, OCTETS = "application/json", "application/x-ndjson", "application/octet-stream"


class TaskReplica:
    """Subclass it with `load` and `answer`; with `unload` if something must be cleaned up; and with `is_healthy`.

    `is_healthy` is called if the capabilities have `has_health_check`.
    """

    pid: int | None = None

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.capabilities = Capabilities()
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._running: dict[int, _Running] = {}
        self._asked: dict[int, tuple[Question[Any], asyncio.Task[bytes]]] = {}
        self._last_id = 0
        self._end: asyncio.Task[None] | None = None  # of the replica: started once, awaited by every caller

    # ── to be overridden ─────────────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> Capabilities:
        """Make the model ready; called once. Return its methods as capabilities.

        Raises:
            LoadError: with the reason, for the operator.
        """
        raise NotImplementedError

    def answer(self, method: str, inputs: Any) -> Any:
        """Answer one call: return a coroutine for a value, or an async iterator for a stream of values.

        It is cancelled when the client disconnects or a time limit is over. `inputs` and the values are plain data.

        Raises:
            HTTPError: sent to the client. Any other exception is a failure of the model, with a traceback in its log.
        """
        raise NotImplementedError

    async def unload(self) -> None:
        """Clean up what `load` has started, even partly. Called once, when the code of all calls has stopped.

        It is cancelled when it takes longer than the rest of a stop's grace, and longer than END_GRACE.
        """

    async def is_healthy(self) -> bool | None:
        """Return the model's health; None means no opinion. Called on probes and scrapes, one at a time."""
        return None

    # ── Replica ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def last_ping(self) -> float:
        return self._loop.time()  # it runs on the same event loop

    async def start(self) -> Capabilities:
        try:
            self.capabilities = await self.load()
        except BaseException as error:
            await self.kill("the load was given up")
            if isinstance(error, LoadError) or not isinstance(error, Exception):
                raise
            self._log("the load failed", error)
            raise LoadError(f"{type(error).__name__}: {error}") from error
        return self.capabilities

    def open(self, call: Call, ended: Callable[[Call], None]) -> None:
        if self.lost.done():
            raise ConnectionError("the replica is gone")
        call.opened(self, self._new_id())
        running = self._running[call.id] = _Running(call, ended)
        running.task = self._loop.create_task(self._run(running))
        running.task.add_done_callback(partial(self._done, running))

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def ask(self, question: Question[Any]) -> None:
        if self.lost.done():
            raise ConnectionError("the replica is gone")
        question.asked(self, self._new_id())
        task = self._loop.create_task(self._reply_to(question))
        self._asked[question.id] = (question, task)
        task.add_done_callback(partial(self._replied, question))

    def calls(self) -> Iterator[Call]:
        return (running.call for running in tuple(self._running.values()))

    def pending(self) -> Iterator[Pending]:
        if self.lost.done():
            return iter(())  # it is ending, which is bounded
        return iter((*self.calls(), *(question for question, _ in self._asked.values())))

    async def stop(self, grace: float) -> None:
        until = self._loop.time() + grace
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=grace)
        await self._ended("stopped", until)

    async def kill(self, reason: str) -> None:
        await self._ended(reason, 0.0)

    async def _ended(self, reason: str, until: float) -> None:
        """End the replica: the first caller starts that, every caller waits for it.

        It continues if callers are cancelled.
        """
        if self._end is None:
            if not self.lost.done():
                self.lost.set_result(reason)
            for running in self._running.values():
                running.call.on_error(Crashed("the model was ended while it ran this call", should_retry=False))
            asked, self._asked = self._asked, {}
            for question, _ in asked.values():
                question.on_error(Crashed("the model was ended while it was asked", should_retry=False))
            tasks: list[asyncio.Task[Any]] = [*self._tasks(), *(task for _, task in asked.values())]
            for task in tasks:
                task.cancel()
            self._end = self._loop.create_task(self._finish(tasks, until))
        await asyncio.shield(self._end)

    async def _finish(self, tasks: list[asyncio.Task[Any]], until: float) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=END_GRACE)
        for running in tuple(self._running.values()):  # given up: these do not stop
            self.launch.on_log(f"[{running.call.req.request_id}] ERROR runner: {running.call.req.method} does not stop")
            self._leave(running, None)
        unload = self._loop.create_task(self._unload())
        limit = max(END_GRACE, until - self._loop.time())
        await asyncio.wait([unload], timeout=limit)
        if not unload.done():
            self.launch.on_log(f"ERROR runner: the unload took longer than {limit:g} s and was given up")
            unload.cancel()
            await asyncio.wait([unload], timeout=END_GRACE)

    async def _unload(self) -> None:
        try:
            await self.unload()
        except Exception as error:
            self._log("the unload failed", error)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [running.task for running in self._running.values() if running.task is not None]

    async def scrape(self) -> bytes:
        return b""

    async def owns(self, client_port: int, server_port: int) -> bool:
        return False

    def update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        pass

    # ── the owner of a call ──────────────────────────────────────────────────────────────────────────────────────

    def cancel(self, pending: Pending) -> None:
        if (running := self._running.get(pending.id)) is not None and running.task is not None:
            running.task.cancel()
        elif (asked := self._asked.get(pending.id)) is not None:
            asked[1].cancel()

    def grant(self, call: Call) -> None:
        call.owed = call.owed_size = 0
        if (running := self._running.get(call.id)) is not None:
            running.has_room.set()

    def message(self, call: Call, payload: bytes) -> None:
        """Do nothing: websockets are not supported."""

    # ── one call ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self, running: _Running) -> None:
        call = running.call
        if all(known.name != call.req.method for known in self.capabilities.methods):
            raise RouteNotSupported(f"the model has no `{call.req.method}`")
        value = self.answer(call.req.method, _inputs(call))
        if inspect.isawaitable(value):
            value = await value
        if isinstance(value, AsyncIterator):
            await _stream(running, value)
            return
        head = Resp(200, call.req.mode, False, True, JSON)
        if call.req.mode == BYTES:
            head.content_type, body = _written(value)
            call.on_resp(head, body)
        else:
            call.on_resp(head, decode(_packed(value)))

    def _done(self, running: _Running, task: asyncio.Task[None]) -> None:
        """The code of a call has stopped, possibly because it was cancelled before it started."""
        error = None if task.cancelled() else task.exception()
        self._leave(running, error if error is None or isinstance(error, GatewayError) else ModelError(MODEL_RAISED))
        if error is not None:
            self._log_fault(running.call.req.method, running.call.req.request_id, error)

    def _log_fault(self, method: str, request_id: str, error: BaseException) -> None:
        """Log an exception of the runner's code, whose details clients do not get."""
        if not isinstance(error, GatewayError):
            self._log(f"{method} failed", error, f"[{request_id}] ")

    def _leave(self, running: _Running, error: BaseException | None) -> None:
        call = running.call
        if self._running.pop(call.id, None) is None:
            return
        if error is not None:
            call.on_error(error)  # ignored if the call has an error already
        elif not call.ended:
            call.on_end()
        running.ended(call)

    # ── one question ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _reply_to(self, question: Question[Any]) -> bytes:
        if question.ask.what != "is_healthy":
            raise RouteNotSupported("the runner of this model cannot swap its class; reload the model")
        says = await self.is_healthy()
        return encode(None if says is None else bool(says))

    def _replied(self, question: Question[Any], task: asyncio.Task[bytes]) -> None:
        if self._asked.pop(question.id, None) is None:
            return
        if task.cancelled():
            question.on_end()
        elif (error := task.exception()) is not None:
            question.on_error(error if isinstance(error, GatewayError) else ModelError(MODEL_RAISED))
            self._log_fault(question.ask.what, question.ask.what, error)
        else:
            question.on_answer(task.result())

    def _log(self, what: str, error: BaseException, request: str = "") -> None:
        """Write one record in the format of workers."""
        trace = "".join(traceback.format_exception(error)).rstrip("\n")
        self.launch.on_log(f"{request}ERROR runner: {what}: {type(error).__name__}: {error}\n{trace}")


@dataclass(slots=True, eq=False)
class _Running:
    call: Call
    ended: Callable[[Call], None]
    task: asyncio.Task[None] | None = None
    has_room: asyncio.Event = field(default_factory=asyncio.Event)  # set when the client has consumed something


async def _stream(running: _Running, items: AsyncIterator[Any]) -> None:
    """Pass items on as they come, at most one window ahead of the client."""
    call = running.call
    is_bytes = call.req.mode == BYTES
    try:
        async for item in items:
            kind, packed = _written(item, b"\n") if is_bytes else (JSON, _packed(item))
            if call.head is None:
                call.on_resp(Resp(200, call.req.mode, True, False, LINES if kind == JSON and is_bytes else kind), b"")
            while len(call.items) + call.owed >= WINDOW_ITEMS or call.size + call.owed_size >= WINDOW_BYTES:
                running.has_room.clear()
                await running.has_room.wait()
            call.on_items([packed if is_bytes else decode(packed)], len(packed))
        if call.head is None:
            call.on_resp(Resp(200, call.req.mode, True, False, OCTETS), b"")
    finally:
        if (close := getattr(items, "aclose", None)) is not None:
            await close()


def _inputs(call: Call) -> Any:
    """Return the body as plain data: parsed JSON on predict routes, otherwise what the dialect made of it."""
    body = bytes(call.body)
    call.body = b""  # free it: it may be large
    if call.req.mode != BYTES:
        return decode(body) if body else None
    try:
        return json_costs.read(body)
    except json_costs.TooDear as error:
        raise TooLarge(f"the body {error}; send it in several requests") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidJSON(f"the body is not valid JSON: {error}") from error


def _packed(value: Any) -> bytes:
    try:
        return encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as error:
        raise InvalidOutput(f"the model's answer is not plain data: {error}") from error


def _written(value: Any, end: bytes = b"") -> tuple[str, bytes]:
    """Encode a value for predict. Returns its type and bytes: bytes and str unchanged, JSON of anything else."""
    if isinstance(value, bytes | str):
        return OCTETS, value if isinstance(value, bytes) else value.encode()
    try:
        return JSON, msgspec.json.encode(value) + end
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOutput(f"the model's answer cannot be written as JSON: {error}") from error
