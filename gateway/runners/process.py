"""Run a model in a child process.

Owns the channel and handles frames about the worker as a whole. `spawn.py` has the process itself, `in_flight.py` the
calls and questions. Knows nothing of HTTP, placement or restarts. The worker is not trusted: a frame that breaks the
rules ends this replica only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Crashed
from ..hookspecs import hookimpl
from ..spec import Capabilities
from ..system.begun import Begun
from ..wire import frames, plain
from ..wire.channel import Channel
from ..wire.values import WireError, decode_weighed, encode
from .batches import most_calls
from .call import Call
from .hello import hello_of
from .in_flight import InFlight
from .pending import NEVER, Pending
from .question import Question
from .replica import Launch, LoadError, Runner
from .spawn import Child
from .yielding import LOOK, Yielding

if TYPE_CHECKING:
    from collections.abc import Iterator

KILL_GRACE = 5.0  # seconds from SIGTERM to SIGKILL
HELLO_TIMEOUT = 60.0  # seconds for an interpreter to start; a busy machine needs a few
LAST_FRAMES = 0.2  # seconds for frames written just before the process ended; usually its channel closes with it
CLOSED_GRACE = 1.0  # seconds to wait for the exit status, which gives the reason, after a worker has closed its channel
ITS_SHARE = 0.9  # share of a stop's grace after which the worker exits by itself
SCRAPE_TIMEOUT = 5.0  # seconds
WHOSE_TIMEOUT = 2.0  # seconds; without an answer the connection counts as a stranger's
ASK_LOG = "; `gateway logs {}` says how it ended"
MOST_NAMED = 3  # of the requests that were lost with a worker

log = logging.getLogger("gateway.models")


@hookimpl
def register_runners(register: Callable[[str, Runner], None]) -> None:
    register("process", ProcessReplica)


class ProcessReplica:
    """A replica in a child process, started by exec with one end of a socketpair."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._name = launch.spec.name
        self._loop = asyncio.get_running_loop()
        self._begun = Begun.new()
        self._child = Child(launch)
        self._in_flight = InFlight(self._on_own_frame, self._child.log.shown, launch.debug, launch.on_batch)
        self._channel: Channel | None = None
        self._yielding = Yielding(None)
        self._hello: asyncio.Future[frames.WorkerHello] = self._loop.create_future()
        self._ready: asyncio.Future[Capabilities] = self._loop.create_future()
        self._scrape: asyncio.Future[bytes] | None = None
        self._whose: dict[tuple[int, int], asyncio.Future[bool]] = {}
        self._owes_whose = False  # the last question was not answered in time: model code blocks the worker's loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: dict[int, asyncio.Task[None]] = {}  # large requests by id, while they are written
        self._updating = asyncio.Lock()
        self._broken = self._is_stopping = self._has_loaded = self._is_described = False
        self._has_met = False  # hello frames were exchanged
        self._news: frames.Update | None = None  # an update from before that
        self.capabilities = Capabilities()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.last_ping = self.lag = 0.0
        for future in (self._hello, self._ready):
            future.add_done_callback(_retrieve)

    @property
    def pid(self) -> int | None:
        return self._child.pid

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> Capabilities:
        """Spawn the process, exchange hellos, load. See `Replica.start`."""
        try:
            channel = self._new_channel()
            try:
                sock = await self._child.spawn(self._begun)
            finally:
                self._begun.close_file()
            self._spawn(self._watch())
            await self._loop.create_connection(lambda: channel, sock=sock)
            self._channel = channel
            await self._shake_hands()
            self._yielding = Yielding(self.pid if self._launch.spec.yields else None)
            self.capabilities = await self._ready
            return self.capabilities
        except BaseException:
            await self.kill("the load was given up")
            raise

    def _new_channel(self) -> Channel:
        return Channel(
            self._in_flight.on_frame,
            self._on_lost,
            limits=frames.FROM_WORKER,
            is_wanted=self._in_flight.is_wanted,
            room=self._launch.room,
            on_dropped=self._in_flight.on_dropped,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watch(self) -> None:
        """Notice the end of the process, even if a process that it forked holds the channel open."""
        reason = await self._child.wait()
        await asyncio.sleep(LAST_FRAMES)
        self._break(reason)

    async def _shake_hands(self) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                hello = await self._hello
        except TimeoutError:
            raise LoadError(f"the worker process did not answer within {HELLO_TIMEOUT:g} s") from None
        if hello.version != frames.VERSION:
            raise LoadError(f"the worker speaks protocol {hello.version}, the gateway {frames.VERSION}", fatal=True)
        try:
            self._send(frames.HELLO, 0, encode(hello_of(self._launch)))
            self._has_met = True
            if self._news is not None:
                self._send(frames.UPDATE, 0, encode(self._news))
        except ConnectionError:
            self._break("")  # this sets the reason that `_ready` fails with

    async def stop(self, grace: float) -> None:
        self._is_stopping = True
        if self._child.is_running and not self._broken:
            try:
                self._send(frames.SHUTDOWN, 0, encode(frames.Shutdown(grace * ITS_SHARE)))
                async with asyncio.timeout(grace):
                    await self._child.wait()
            except (ConnectionError, TimeoutError):
                pass
        await self._end(KILL_GRACE)

    async def kill(self, reason: str) -> None:
        self._break(reason)
        await self._end(0.0)

    async def _end(self, grace: float) -> None:
        await self._child.end(grace)
        self._break("stopped")
        if self._channel is not None:
            self._channel.transport.abort()

    # ── calls and questions ──────────────────────────────────────────────────────────────────────────────────────────

    def open(self, call: Call, ended: Callable[[Call], None]) -> None:
        if self._channel is None or self._broken:
            raise ConnectionError("the replica is gone")
        call_id = self._in_flight.new_id()
        if not call_id % LOOK:
            self._yielding.look(call_id)
        if call.until != NEVER:
            call.req.deadline = call.until - self._loop.time()
        if len(call.body) >= frames.MAX_FRAME:
            self._send_beside(call, call_id, call.body, frames.join(call.req))
        elif len(payload := frames.join(call.req, call.body)) <= frames.MAX_FRAME:
            (self._channel.send_soon if call.is_ahead else self._channel.send)(frames.REQ, call_id, payload)
        else:
            self._send_beside(call, call_id, payload)
        if call.is_ahead:
            call.sent(self, call_id)
        else:
            call.body = b""  # free it: it may be large
            call.opened(self, call_id)
        self._in_flight.calls[call_id] = (call, ended)

    def ask(self, question: Question[Any]) -> None:
        if self._broken:
            raise ConnectionError("the replica is gone")
        question_id = self._in_flight.new_id()
        self._send(frames.ASK, question_id, encode(question.ask))
        question.asked(self, question_id)
        self._in_flight.questions[question_id] = question

    def _send_beside(self, call: Call, call_id: int, payload: bytes, head: bytes = b"") -> None:
        task = self._sending[call_id] = self._spawn(self._send_large(call, call_id, payload, head))
        task.add_done_callback(lambda _: self._sending.pop(call_id))

    async def _send_large(self, call: Call, call_id: int, payload: bytes, head: bytes = b"") -> None:
        assert self._channel is not None
        try:
            await self._channel.send_large(frames.REQ, call_id, payload, lambda: call.cancelled_at == NEVER, head)
        except ConnectionError:
            pass  # _on_lost tells the call

    def cancel(self, pending: Pending) -> None:
        if (sending := self._sending.get(pending.id)) is not None:
            sending.cancel()  # it holds the body, and the worker may not read it for long
        try:
            self._send(frames.CANCEL, pending.id)
        except ConnectionError:
            pass

    def recall(self, call: Call) -> None:
        try:
            self._send(frames.RECALL, call.id)
        except ConnectionError:
            pass  # _on_lost gives it back

    def grant(self, call: Call) -> None:
        # Half a window at a time: a frame for every chunk would double the work of a stream.
        if call.owed * 2 >= frames.WINDOW_ITEMS or call.owed_size * 2 >= frames.WINDOW_BYTES:
            credit = frames.Credit(call.owed, call.owed_size)
            call.owed = call.owed_size = 0
            try:
                self._send(frames.CREDIT, call.id, encode(credit))
            except ConnectionError:
                pass

    def message(self, call: Call, payload: bytes) -> None:
        try:
            if self._channel is not None:
                self._channel.send_split(frames.MESSAGE, call.id, payload)
        except ConnectionError:
            pass  # _on_lost tells the call

    def calls(self) -> Iterator[Call]:
        return self._in_flight.each_call()

    def pending(self) -> Iterator[Pending]:
        return self._in_flight.pending()

    # ── side channels ────────────────────────────────────────────────────────────────────────────────────────────────

    async def scrape(self) -> bytes:
        if self._broken or not self._ready.done():
            return b""
        if self._scrape is None or self._scrape.done():
            self._scrape = self._loop.create_future()
            try:
                self._send(frames.SCRAPE, 0)
            except ConnectionError:
                self._scrape.set_result(b"")
        done, _ = await asyncio.wait([self._scrape], timeout=SCRAPE_TIMEOUT)  # a busy model may block the worker's loop
        return self._scrape.result() if done else b""

    async def owns(self, client_port: int, server_port: int) -> bool:
        ports = client_port, server_port
        if self._broken or not self._has_met or self._owes_whose or self._launch.spec.sandbox == "strict":
            return False  # a strict worker has its own network, without a way to us
        answer = self._whose.get(ports)
        if answer is None:
            answer = self._whose[ports] = self._loop.create_future()
            try:
                self._send(frames.WHOSE, 0, encode(frames.Whose(*ports)))
            except ConnectionError:
                answer.set_result(False)
        try:
            await asyncio.wait([answer], timeout=WHOSE_TIMEOUT)
        finally:
            self._whose.pop(ports, None)
        self._owes_whose = not answer.done()
        return answer.done() and answer.result()

    def update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        self._spawn(self._update(secrets, deployment))

    async def _update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        async with self._updating:  # in the order in which they came
            if secrets is not None:
                await asyncio.to_thread(self._child.hide, secrets)
            self._send_update(secrets, deployment)

    def _send_update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        news = frames.Update(
            secrets=dict(secrets) if secrets is not None else None,
            deployment=dict(deployment) if deployment is not None else None,
        )
        if not self._has_met:  # the launch has older values
            self._news = news
            return
        try:
            self._send(frames.UPDATE, 0, encode(news))
        except ConnectionError:
            pass  # the next worker gets them at its launch

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, kind: int, call: int, payload: bytes = b"") -> None:
        if self._channel is None:
            raise ConnectionError("the replica is gone")
        self._channel.send_split(kind, call, payload)

    def _on_own_frame(self, kind: int, payload: memoryview) -> None:
        """Handle a frame about the worker as a whole."""
        if kind == frames.PING:
            self.last_ping, self.lag = self._loop.time(), frames.decode_head(frames.Ping, payload).lag
            self._yielding.look(self._in_flight.last_id)
        elif kind == frames.HELLO:
            if self._hello.done():
                raise WireError("a second hello")
            self._hello.set_result(frames.decode_head(frames.WorkerHello, payload))
        elif kind == frames.DESCRIBED:
            if self._is_described or self._ready.done():
                raise WireError("a second described, or one after ready")
            self._is_described = True
            self._launch.on_described(plain.to_capabilities(decode_weighed(payload)))
        elif kind == frames.READY:
            if self._ready.done():
                raise WireError("a second ready")
            self.last_ping = self._loop.time()
            self._has_loaded = True
            self._in_flight.most_in_batch = most_calls(self._launch.spec)
            self._ready.set_result(plain.to_capabilities(decode_weighed(payload)))
        elif kind == frames.ERROR:
            failure = frames.decode_head(frames.Failure, payload)
            reason = failure.reason or failure.message
            if not self._ready.done():
                self._ready.set_exception(LoadError(self._child.log.shown(reason), fatal=failure.fatal))
            else:
                self._break(reason)
                raise ConnectionAbortedError("the worker has said why it ends")  # what it sends then is not read
        elif kind == frames.METRICS:
            if self._scrape is not None and not self._scrape.done():
                self._scrape.set_result(bytes(payload))
        elif kind == frames.WHOSE:
            said = frames.decode_head(frames.Whose, payload)
            self._owes_whose = False
            asked = self._whose.get((said.client_port, said.server_port))
            if asked is not None and not asked.done():
                asked.set_result(said.is_mine)
        else:
            raise WireError(f"{frames.name_of(kind)} frame from a worker")

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_lost(self, error: Exception | None) -> None:
        if error is None or isinstance(error, OSError):
            self._break("")
        elif isinstance(error, WireError):
            self._break(f"the worker broke the protocol: {error}")
        else:
            log.error("%s: a frame of the worker could not be handled", self._name, exc_info=error)
            self._break(f"the gateway could not handle what the worker sent: {type(error).__name__}")

    def _break(self, reason: str) -> None:
        """End everything that is open, because no more frames will come; then report why."""
        if self._broken:
            return
        self._broken = True
        if self._channel is not None:
            self._channel.fail(ConnectionAbortedError("no more frames are read"))
        text = f"the worker of model '{self._name}' was lost while it ran this call{ASK_LOG.format(self._name)}"
        ran = self._in_flight.lose(lambda: Crashed(text, should_retry=False), self._begun.last)
        self._begun.close_page()
        if self._scrape is not None and not self._scrape.done():
            self._scrape.set_result(b"")
        self._spawn(self._say_why(self._child.log.shown(reason), ran))

    async def _say_why(self, reason: str, ran: Sequence[str]) -> None:
        """Report the reason, which is known a moment after the socket closed.

        `ran` are the requests that were running.
        """
        if not reason:
            try:
                async with asyncio.timeout(CLOSED_GRACE):
                    reason = await self._child.wait()
            except TimeoutError:
                reason = "the worker closed its channel"
        if self._has_loaded and not self._is_stopping:  # a failed load is reported elsewhere
            told = f", while it ran {', '.join(ran[:MOST_NAMED])}" if ran else ""
            more = f" and {len(ran) - MOST_NAMED} more" if len(ran) > MOST_NAMED else ""
            self._launch.on_log(f"ERROR gateway: {reason}{told}{more}")
        error = LoadError(reason)
        for future in (self._hello, self._ready):
            if not future.done():
                future.set_exception(error)
        if not self.lost.done():
            self.lost.set_result(str(error))


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Mark the exception as retrieved: the load may have been cancelled."""
    if not future.cancelled():
        future.exception()
