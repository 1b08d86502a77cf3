"""Run a model in a child process.

Owns the channel and the calls in flight; the process itself is `child.py`. Knows nothing of HTTP; decides nothing about
placement or restarts. The worker is the less trusted side: a frame that breaks the rules ends this replica only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import plain, printable, wire
from ..call import NEVER, RETRY_AFTER, Call, to_error
from ..channel import Channel
from ..errors import Crashed, Overloaded
from ..hookspecs import hookimpl
from ..replica import Launch, LoadError, Runner
from ..spec import Capabilities
from ..weighing import SMALL
from ..wire import DATA, ITEMS, RESP, SOCKET, USUAL_TYPES, Resp, WireError, split, split_items
from ..wording import counted
from .child import Child

if TYPE_CHECKING:
    from collections.abc import Iterator

KILL_GRACE = 5.0  # seconds from SIGTERM to SIGKILL
HELLO_TIMEOUT = 60.0  # seconds for an interpreter to start; a busy machine needs a few
LAST_FRAMES = 0.2  # seconds for what a process wrote before its end; its channel closes with it, as a rule
CLOSED_GRACE = 1.0  # seconds that a worker has to be gone after it closed its channel; its exit status says why
ITS_SHARE = 0.9  # of the grace of a stop: the worker leaves by itself before it is made to
SCRAPE_TIMEOUT = 5.0  # seconds
WHOSE_TIMEOUT = 2.0  # seconds; a worker that cannot say so is taken for a stranger
ASK_LOG = "; `gateway logs {}` says how it ended"
MOST_NAMED = 3  # of the requests that a worker took along
LAST_ID = 0xFFFFFFFF  # of calls
NO_ROOM = (
    f"the gateway is overloaded: more than {counted(wire.MAX_PENDING, 'byte')} of large answers are on their way to it"
)
OF_CALLS = frozenset((wire.RESP, wire.ITEMS, wire.END, wire.ERROR, wire.SLOT, wire.WAITS, wire.MESSAGE, wire.CREDIT))

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
        self._calls: dict[int, tuple[Call, Callable[[Call], None]]] = {}
        self._next_id = 0
        self._has_gone_round = False  # every id was a call's
        self._child = Child(launch)
        self._channel: Channel | None = None
        self._hello: asyncio.Future[wire.WorkerHello] = self._loop.create_future()
        self._ready: asyncio.Future[Capabilities] = self._loop.create_future()
        self._scrape: asyncio.Future[bytes] | None = None
        self._whose: dict[tuple[int, int], asyncio.Future[bool]] = {}
        self._owes_whose = False  # it did not say so in time: code of the model holds it up
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken = self._is_stopping = self._has_loaded = False
        self._has_met = False  # hellos were exchanged
        self._is_described = False
        self._news: wire.Update | None = None  # what changed before that
        self.capabilities = Capabilities()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.last_ping = 0.0
        self.lag = 0.0
        for future in (self._hello, self._ready):
            future.add_done_callback(_retrieve)

    @property
    def pid(self) -> int | None:
        return self._child.pid

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> Capabilities:
        """Spawn, shake hands, load. See `Replica.start`."""
        try:
            channel = self._new_channel()
            sock = await self._child.spawn()
            self._spawn(self._watch())
            await self._loop.create_connection(lambda: channel, sock=sock)
            self._channel = channel
            await self._shake_hands()
            self.capabilities = await self._ready
            return self.capabilities
        except BaseException:
            await self.kill("the load was given up")
            raise

    def _new_channel(self) -> Channel:
        return Channel(
            self._on_frame,
            self._on_lost,
            limits=wire.FROM_WORKER,
            is_wanted=self._is_wanted,
            room=self._launch.room,
            on_dropped=self._on_dropped,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self) -> None:
        """See the process end, even if something that it forked holds its channel open."""
        reason = await self._child.wait()
        await asyncio.sleep(LAST_FRAMES)
        self._break(reason)

    async def _shake_hands(self) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                hello = await self._hello
        except TimeoutError:
            raise LoadError(f"the worker process did not answer within {HELLO_TIMEOUT:g} s") from None
        if hello.version != wire.VERSION:
            raise LoadError(f"the worker speaks protocol {hello.version}, the gateway {wire.VERSION}", fatal=True)
        try:
            self._send(wire.HELLO, 0, wire.encode(self._our_hello()))
            self._has_met = True
            if self._news is not None:
                self._send(wire.UPDATE, 0, wire.encode(self._news))
        except ConnectionError:
            self._break("")  # which makes the reason that `_ready` ends with

    def _our_hello(self) -> wire.Hello:
        launch = self._launch
        return wire.Hello(
            version=wire.VERSION,
            model=plain.from_spec(launch.spec),
            slots=launch.spec.limits.slots,
            max_waiting=launch.spec.limits.max_queue,
            secrets=dict(launch.secrets),
            deployment=dict(launch.deployment) if launch.deployment is not None else None,
            plugin_dirs=[str(path) for path in launch.plugin_dirs],
            endpoint_methods=list(launch.endpoint_methods),
            queue_timeout=launch.spec.limits.queue_timeout,
            cancel_grace=launch.spec.limits.cancel_grace,
            debug=launch.debug,
            taken_ports=list(launch.taken_ports),
        )

    async def stop(self, grace: float) -> None:
        self._is_stopping = True
        if self._child.is_running and not self._broken:
            try:
                self._send(wire.SHUTDOWN, 0, wire.encode(wire.Shutdown(grace * ITS_SHARE)))
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

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, call: Call, ended: Callable[[Call], None]) -> None:
        if self._channel is None or self._broken:
            raise ConnectionError("the replica is gone")
        self._next_id = call_id = self._free_id()
        if call.until != NEVER:
            call.req.deadline = call.until - self._loop.time()
        if len(call.body) >= wire.MAX_FRAME:
            self._spawn(self._send_large(call, call_id, call.body, wire.join(call.req)))
        elif len(payload := wire.join(call.req, call.body)) <= wire.MAX_FRAME:
            self._channel.send(wire.REQ, call_id, payload)
        else:
            self._spawn(self._send_large(call, call_id, payload))
        call.body = b""  # it may be large, and is the worker's now
        call.opened(self, call_id)
        self._calls[call_id] = (call, ended)

    def _free_id(self) -> int:
        call_id = self._next_id
        while True:
            if call_id == LAST_ID:
                call_id, self._has_gone_round = 0, True
            call_id += 1
            if call_id not in self._calls:
                return call_id

    async def _send_large(self, call: Call, call_id: int, payload: bytes, head: bytes = b"") -> None:
        assert self._channel is not None
        try:
            await self._channel.send_large(wire.REQ, call_id, payload, lambda: call.cancelled_at == NEVER, head)
        except ConnectionError:
            pass  # _on_lost tells the call

    def cancel(self, call: Call) -> None:
        try:
            self._send(wire.CANCEL, call.id)
        except ConnectionError:
            pass

    def grant(self, call: Call) -> None:
        # Half a window at a time: a frame for every chunk would double the work of a stream.
        if call.owed * 2 >= wire.WINDOW_ITEMS or call.owed_size * 2 >= wire.WINDOW_BYTES:
            credit = wire.Credit(call.owed, call.owed_size)
            call.owed = call.owed_size = 0
            try:
                self._send(wire.CREDIT, call.id, wire.encode(credit))
            except ConnectionError:
                pass

    def message(self, call: Call, payload: bytes) -> None:
        try:
            if self._channel is not None:
                self._channel.send_split(wire.MESSAGE, call.id, payload)
        except ConnectionError:
            pass  # _on_lost tells the call

    def calls(self) -> Iterator[Call]:
        return (call for call, _ in tuple(self._calls.values()))

    # ── side channels ────────────────────────────────────────────────────────────────────────────────────────────

    async def scrape(self) -> bytes:
        if self._broken or not self._ready.done():
            return b""
        if self._scrape is None or self._scrape.done():
            self._scrape = self._loop.create_future()
            try:
                self._send(wire.SCRAPE, 0)
            except ConnectionError:
                self._scrape.set_result(b"")
        done, _ = await asyncio.wait([self._scrape], timeout=SCRAPE_TIMEOUT)  # a computing model may keep its loop busy
        return self._scrape.result() if done else b""

    async def owns(self, client_port: int, server_port: int) -> bool:
        ports = client_port, server_port
        if self._broken or not self._has_met or self._owes_whose or self._launch.spec.sandbox == "strict":
            return False  # the network of a strict one is its own, and leads to nobody
        answer = self._whose.get(ports)
        if answer is None:
            answer = self._whose[ports] = self._loop.create_future()
            try:
                self._send(wire.WHOSE, 0, wire.encode(wire.Whose(*ports)))
            except ConnectionError:
                answer.set_result(False)
        try:
            await asyncio.wait([answer], timeout=WHOSE_TIMEOUT)
        finally:
            self._whose.pop(ports, None)
        self._owes_whose = not answer.done()
        return answer.done() and answer.result()

    def update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        if secrets is not None:
            self._child.log.hide(secrets.values())
        news = wire.Update(
            secrets=dict(secrets) if secrets is not None else None,
            deployment=dict(deployment) if deployment is not None else None,
        )
        if not self._has_met:  # the launch told the older ones
            self._news = news
            return
        try:
            self._send(wire.UPDATE, 0, wire.encode(news))
        except ConnectionError:
            pass  # the next one is told from the beginning

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, kind: int, call: int, payload: bytes = b"") -> None:
        if self._channel is None:
            raise ConnectionError("the replica is gone")
        self._channel.send_split(kind, call, payload)

    def _on_frame(self, kind: int, call_id: int, payload: memoryview) -> None:
        if call_id:
            entry = self._calls.get(call_id)
            if entry is not None:
                call, ended = entry
                if kind == ITEMS:  # most frames are; so they go without another step
                    items, size = split_items(payload, call.kind)
                    call.on_items(items, size)
                else:
                    self._on_call_frame(kind, call_id, call, ended, payload)
            else:
                self._check_late(kind, call_id)
        elif kind == wire.PING:
            self.last_ping, self.lag = self._loop.time(), wire.decode_head(wire.Ping, payload).lag
        elif kind == wire.HELLO:
            if self._hello.done():
                raise WireError("a second hello")
            self._hello.set_result(wire.decode_head(wire.WorkerHello, payload))
        elif kind == wire.DESCRIBED:
            if self._is_described or self._ready.done():
                raise WireError("a second described, or one after ready")
            self._is_described = True
            self._launch.on_described(plain.to_capabilities(wire.decode_weighed(payload)))
        elif kind == wire.READY:
            if self._ready.done():
                raise WireError("a second ready")
            self.last_ping = self._loop.time()
            self._has_loaded = True
            self._ready.set_result(plain.to_capabilities(wire.decode_weighed(payload)))
        elif kind == wire.ERROR:
            failure = wire.decode_head(wire.Failure, payload)
            reason = printable.lines(self._child.log.redact(failure.reason or failure.message))
            if not self._ready.done():
                self._ready.set_exception(LoadError(reason, fatal=failure.fatal))
            else:
                self._break(reason)
        elif kind == wire.METRICS:
            if self._scrape is not None and not self._scrape.done():
                self._scrape.set_result(bytes(payload))
        elif kind == wire.WHOSE:
            said = wire.decode_head(wire.Whose, payload)
            self._owes_whose = False
            asked = self._whose.get((said.client_port, said.server_port))
            if asked is not None and not asked.done():
                asked.set_result(said.is_mine)
        else:
            raise WireError(f"{wire.name_of(kind)} frame from a worker")

    def _check_late(self, kind: int, call_id: int) -> None:
        """What comes behind the end of a call, as items do after a cancel; of a call that never was, nothing may."""
        if kind not in OF_CALLS:
            raise WireError(f"{wire.name_of(kind)} frame for a call")
        if call_id > self._next_id and not self._has_gone_round:
            raise WireError(f"{wire.name_of(kind)} frame for call {call_id}, which never was")

    def _is_wanted(self, kind: int, call_id: int) -> bool:
        """Whether the parts of a split payload are kept until it is whole."""
        if not call_id and kind in OF_CALLS:
            raise WireError(f"{wire.name_of(kind)} frame for no call")
        if call_id and call_id not in self._calls:
            self._check_late(kind, call_id)
            return False
        return True

    def _on_dropped(self, call_id: int) -> None:
        """There is no room for an answer, here or of another model; its code is stopped, and the rest not kept."""
        entry = self._calls.get(call_id)
        if entry is not None:
            entry[0].abandon(Overloaded(NO_ROOM, retry_after=RETRY_AFTER, cause="max_pending"))

    def _on_call_frame(
        self, kind: int, call_id: int, call: Call, ended: Callable[[Call], None], payload: memoryview
    ) -> None:
        if kind == RESP:
            head, body = split(Resp, payload)
            req = call.req
            if (
                head.status != 200
                or head.raw
                or head.headers
                or head.content_type not in USUAL_TYPES
                or head.kind != req.mode
                or head.stream == head.final
                or req.method == SOCKET
            ):
                wire.check_resp(head)
                wire.check_form(head, req)
            if head.kind != DATA or not head.final:
                call.on_resp(head, body if len(payload) > wire.MAX_FRAME else bytes(body))
            else:
                if len(body) > SMALL:
                    wire.check_weight(body)
                call.on_resp(head, wire.decode(body))
            if not head.final:
                return
        elif kind == wire.MESSAGE:
            if call.kind != wire.MESSAGES:
                raise WireError("a message for a call that is no websocket")
            call.on_items([wire.decode_message(payload)], len(payload))
            return
        elif kind == wire.CREDIT:
            credit = wire.decode_head(wire.Credit, payload)
            call.on_taken(credit.items, credit.size)
            return
        elif kind == wire.END:
            call.on_end()
        elif kind == wire.ERROR:
            failure = wire.decode_head(wire.Failure, payload)
            wire.check_failure(failure)
            call.on_error(to_error(failure))
        elif kind == wire.SLOT:
            call.on_slot()
            return
        elif kind == wire.WAITS:
            call.on_waits()
            return
        else:
            raise WireError(f"{wire.name_of(kind)} frame for a call")
        del self._calls[call_id]
        ended(call)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_lost(self, error: Exception | None) -> None:
        if error is None or isinstance(error, OSError):
            self._break("")
        elif isinstance(error, WireError):
            self._break(f"the worker broke the protocol: {error}")
        else:
            log.error("%s: a frame of the worker could not be handled", self._name, exc_info=error)
            self._break(f"the gateway could not handle what the worker sent: {type(error).__name__}")

    def _break(self, reason: str) -> None:
        """Nothing more can come from the worker: end what is open, then say so."""
        if self._broken:
            return
        self._broken = True
        calls, self._calls = self._calls, {}
        text = f"the worker of model '{self._name}' was lost while it ran this call{ASK_LOG.format(self._name)}"
        ran = [call.req.request_id for call, _ in calls.values()]
        for call, ended in calls.values():
            call.on_error(Crashed(text, should_retry=False))
            ended(call)
        if self._scrape is not None and not self._scrape.done():
            self._scrape.set_result(b"")
        self._spawn(self._say_why(reason, ran))

    async def _say_why(self, reason: str, ran: Sequence[str]) -> None:
        """How the process ended is known a moment after its socket closed. `ran` are the requests that it had."""
        if not reason:
            try:
                async with asyncio.timeout(CLOSED_GRACE):
                    reason = await self._child.wait()
            except TimeoutError:
                reason = "the worker closed its channel"
        if self._has_loaded and not self._is_stopping:  # of a load that fails others tell
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
    """A load that nobody waits for any more must not be reported as never retrieved."""
    if not future.cancelled():
        future.exception()
