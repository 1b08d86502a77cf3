"""Run a model in a child process.

Owns the process, its socket, its log and the calls in flight. Knows nothing of HTTP; decides nothing about placement
or restarts. The worker is the less trusted side: a frame that breaks the rules ends this replica and no other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import plain, wire
from ..call import Call, to_error
from ..channel import Channel
from ..errors import Crashed
from ..hookspecs import hookimpl
from ..replica import Launch, LoadError, Runner
from ..spec import Capabilities
from ..wire import WireError
from .log import LineReader

if TYPE_CHECKING:
    from collections.abc import Iterator

KILL_GRACE = 5.0  # seconds from SIGTERM to SIGKILL
HELLO_TIMEOUT = 60.0  # seconds for an interpreter to start; a busy machine needs a few
# What a worker inherits. Anything else, secrets above all, must be declared by the model.
INHERITED = frozenset(
    "PATH HOME LANG LANGUAGE TZ LD_LIBRARY_PATH PYTHONPATH VIRTUAL_ENV XDG_CACHE_HOME GATEWAY_CACHE_DIR "
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy "
    "HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE HF_ENDPOINT TRANSFORMERS_OFFLINE TORCH_HOME NUM_LOAD_RETRIES_TRUSS".split()
)
INHERITED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "ROCM_", "HIP_")


@hookimpl
def register_runners(register: Callable[[str, Runner], None]) -> None:
    register("process", ProcessReplica)


class ProcessReplica:
    """A replica in a child process, started by exec with one end of a socketpair."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, tuple[Call, Callable[[Call], None]]] = {}
        self._next_id = 0
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._hello: asyncio.Future[wire.WorkerHello] = self._loop.create_future()
        self._ready: asyncio.Future[Capabilities] = self._loop.create_future()
        self._scrape: asyncio.Future[bytes] | None = None
        self._log = LineReader(launch.on_log, redact=tuple(launch.secrets.values()))
        self._log_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken = False
        self.capabilities = Capabilities()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.pid: int | None = None
        self.last_ping = 0.0
        self.lag = 0.0
        for future in (self._hello, self._ready):
            future.add_done_callback(_retrieve)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> Capabilities:
        """Spawn, shake hands, load. See `Replica.start`."""
        try:
            await self._spawn()
            async with asyncio.timeout(HELLO_TIMEOUT):
                hello = await self._hello
            if hello.version != wire.VERSION:
                raise LoadError(f"the worker speaks protocol {hello.version}, the gateway {wire.VERSION}", fatal=True)
            self._send(wire.HELLO, 0, wire.encode(self._our_hello()))
            self.capabilities = await self._ready
            return self.capabilities
        except TimeoutError:
            await self.kill("the worker did not start")
            raise LoadError(f"the worker process did not answer within {HELLO_TIMEOUT:g} s") from None
        except BaseException:
            await self.kill("the load was given up")
            raise

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        spec = self._launch.spec
        try:
            # From the loop's thread only: PDEATHSIG fires when the *thread* that spawned the child ends. A session of
            # its own keeps the terminal's Ctrl-C away, so that the gateway can drain, and makes one group to kill.
            self._process = await asyncio.create_subprocess_exec(
                *(spec.python or sys.executable, "-P", "-X", "faulthandler", "-m", "gateway.worker"),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=spec.root,
                env=self._environment(theirs.fileno()),
            )
        except OSError as error:
            ours.close()
            raise LoadError(f"the worker process could not be started: {error}") from error
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._launch.guard(self.pid)
        self._log_task = asyncio.create_task(self._log.drain(self._process))
        channel = Channel(self._on_frame, self._on_lost)
        self._channel = channel
        await self._loop.create_connection(lambda: channel, sock=ours)

    def _environment(self, fd: int) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in INHERITED or name.startswith(INHERITED_PREFIXES)
        }
        return {
            **inherited,
            **self._launch.environment,
            "PYTHONUNBUFFERED": "1",
            "GW_FD": str(fd),
            "GW_PARENT_PID": str(os.getpid()),
        }

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
            debug=launch.debug,
        )

    async def stop(self, grace: float) -> None:
        if self._channel is not None and self._process is not None and self._process.returncode is None:
            try:
                self._send(wire.SHUTDOWN, 0, wire.encode(wire.Shutdown(grace)))
                async with asyncio.timeout(grace):
                    await self._process.wait()
            except (TimeoutError, ConnectionError):
                pass
        await self._end()

    async def kill(self, reason: str) -> None:
        self._break(reason)
        await self._end(grace=0.0)

    async def _end(self, grace: float = KILL_GRACE) -> None:
        """Nothing of the process group is left when this returns."""
        process = self._process
        if process is None:
            return
        if process.returncode is None and grace:
            _signal_group(process.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(grace):
                    await process.wait()
            except TimeoutError:
                pass
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()
        self._launch.unguard(process.pid)
        if self._channel is not None and hasattr(self._channel, "transport"):
            self._channel.transport.abort()
        if self._log_task is not None:
            # A grandchild outside the group may hold the pipe open for ever.
            await asyncio.wait([self._log_task], timeout=0.5)
            self._log_task.cancel()

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, call: Call, ended: Callable[[Call], None]) -> None:
        if self._channel is None or self._broken:
            raise ConnectionError("the replica is gone")
        self._next_id = call_id = self._free_id()
        payload = wire.join(call.req, call.body)
        if len(payload) <= wire.MAX_FRAME:
            self._channel.send(wire.REQ, call_id, payload)
        else:
            task = asyncio.create_task(self._send_large(call, call_id, payload))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        call.body = b""  # it may be large, and is the worker's now
        call.opened(self, call_id)
        self._calls[call_id] = (call, ended)

    def _free_id(self) -> int:
        call_id = self._next_id
        while True:
            call_id = call_id + 1 if call_id < 0xFFFFFFFF else 1
            if call_id not in self._calls:
                return call_id

    async def _send_large(self, call: Call, call_id: int, payload: bytes) -> None:
        assert self._channel is not None
        try:
            await self._channel.send_large(wire.REQ, call_id, payload)
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

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    def calls(self) -> Iterator[Call]:
        return (call for call, _ in tuple(self._calls.values()))

    # ── side channels ────────────────────────────────────────────────────────────────────────────────────────────

    async def scrape(self) -> bytes:
        if self._broken or not self._ready.done():
            return b""
        if self._scrape is None or self._scrape.done():
            self._scrape = self._loop.create_future()
            self._send(wire.SCRAPE, 0)
        return await asyncio.shield(self._scrape)

    def update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        message = wire.Update(
            secrets=dict(secrets) if secrets is not None else None,
            deployment=dict(deployment) if deployment is not None else None,
        )
        self._send(wire.UPDATE, 0, wire.encode(message))

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, kind: int, call: int, payload: bytes = b"") -> None:
        if self._channel is None or not hasattr(self._channel, "transport"):
            raise ConnectionError("the replica is gone")
        self._channel.send(kind, call, payload)

    def _on_frame(self, kind: int, call_id: int, payload: memoryview) -> None:
        if call_id:
            entry = self._calls.get(call_id)
            if entry is None:
                if kind not in (wire.RESP, wire.ITEMS, wire.END, wire.ERROR, wire.SLOT, wire.MESSAGE):
                    raise WireError(f"{_name(kind)} frame for a call")
                return  # late items after a cancel
            self._on_call_frame(kind, call_id, *entry, payload)
        elif kind == wire.PING:
            self.last_ping, self.lag = self._loop.time(), wire.decode_head(wire.Ping, payload).lag
        elif kind == wire.HELLO:
            if self._hello.done():
                raise WireError("a second hello")
            self._hello.set_result(wire.decode_head(wire.WorkerHello, payload))
        elif kind == wire.READY:
            if self._ready.done():
                raise WireError("a second ready")
            self._ready.set_result(plain.to_capabilities(wire.decode(payload)))
        elif kind == wire.ERROR:
            failure = wire.decode_head(wire.Failure, payload)
            if not self._ready.done():
                self._ready.set_exception(LoadError(failure.reason or failure.message, fatal=failure.fatal))
            else:
                raise WireError(failure.reason or failure.message)
        elif kind == wire.METRICS:
            if self._scrape is not None and not self._scrape.done():
                self._scrape.set_result(bytes(payload))
        elif kind == wire.LOG:
            self._launch.on_log(wire.decode_head(wire.LogRecord, payload).message)
        else:
            raise WireError(f"{_name(kind)} frame from a worker")

    def _on_call_frame(
        self, kind: int, call_id: int, call: Call, ended: Callable[[Call], None], payload: memoryview
    ) -> None:
        if kind == wire.ITEMS:
            call.on_items(wire.split_items(payload), len(payload))
            return
        if kind == wire.RESP:
            head, body = wire.split(wire.Resp, payload)
            call.on_resp(head, bytes(body))
            if not head.final:
                return
        elif kind == wire.END:
            call.on_end(wire.decode_head(wire.End, payload).timings)
        elif kind == wire.ERROR:
            failure = wire.decode_head(wire.Failure, payload)
            call.timings = failure.timings
            call.on_error(to_error(failure))
        elif kind == wire.SLOT:
            call.got_slot = True
            return
        else:
            raise WireError(f"{_name(kind)} frame for a call")
        del self._calls[call_id]
        ended(call)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_lost(self, error: Exception | None) -> None:
        if isinstance(error, WireError):
            self._break(f"the worker broke the protocol: {error}")
        else:
            self._break("")

    def _break(self, reason: str) -> None:
        """Nothing more can come from the worker: end what is open, then say so."""
        if self._broken:
            return
        self._broken = True
        calls, self._calls = self._calls, {}
        name = self._launch.spec.name
        for call, ended in calls.values():
            call.on_error(Crashed(f"the worker of model '{name}' was lost while it ran this call", should_retry=False))
            ended(call)
        if self._scrape is not None and not self._scrape.done():
            self._scrape.set_result(b"")
        task = asyncio.ensure_future(self._say_why(reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _say_why(self, reason: str) -> None:
        """How the process ended is known a moment after its socket closed."""
        if not reason and self._process is not None:
            try:
                async with asyncio.timeout(KILL_GRACE):
                    reason = exit_reason(await self._process.wait())
            except TimeoutError:
                reason = "the worker closed its channel"
        error = LoadError(reason or "the worker was lost")
        for future in (self._hello, self._ready):
            if not future.done():
                future.set_exception(error)
        if not self.lost.done():
            self.lost.set_result(str(error))


def exit_reason(code: int) -> str:
    """What an exit status tells people."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        hint = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
        return f"the worker was ended by {name}{hint}"
    return f"the worker exited with status {code}"


def worker_module_dir() -> Path:
    """Where `gateway` itself is importable from, for interpreters that do not have it installed."""
    return Path(__file__).resolve().parents[2]


def _name(kind: int) -> str:
    return wire.NAMES[kind] if kind < len(wire.NAMES) else f"unknown ({kind})"


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _retrieve(future: asyncio.Future[Any]) -> None:
    """A load that nobody waits for any more must not be reported as never retrieved."""
    if not future.cancelled():
        future.exception()
