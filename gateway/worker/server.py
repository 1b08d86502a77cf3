"""The worker's end of the channel: loads the model, then answers calls until the channel ends.

Knows frames and states; how a call is run is `execution.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from .. import plain, wire
from ..channel import Channel
from ..errors import ConfigError
from ..family import owns
from ..wording import addressed
from . import adapter, ports, terminal
from .advice import about_missing, about_taken, is_missing
from .again import about_place, about_secret, about_variable, may_help, missing_variable
from .blocked import Watch
from .execution import Executor
from .failures import encode_failure, log, missing_secret, notes_of, say, text_of, trace_of
from .forks import Forks, open_descriptors
from .lasting import Lasting
from .loader import Loaded, Unloadable, load
from .secrets import Secrets
from .threads import Outbox, Pool
from .told import encoded

PING_INTERVAL = 1.0  # seconds
UNBOUNDED = 1 << 62  # the gateway has bounded every body already
AUX_THREADS = 40  # for hooks, setup_environment and unload; as many as Truss's server has for everything


class Server:
    """One worker. `serve` returns the exit status. With a `refusal` no model is loaded, and it is the reason."""

    def __init__(self, loop: asyncio.AbstractEventLoop, refusal: str = "") -> None:
        self._loop = loop
        self._refusal = refusal
        self._channel = Channel(self._on_frame, self._on_lost, max_pending=UNBOUNDED)
        self._hello: asyncio.Future[wire.Hello] = loop.create_future()
        self._done: asyncio.Future[int] = loop.create_future()
        self._outbox = Outbox(loop)
        self._aux = Pool(AUX_THREADS, "hook", self._outbox)
        self._lasting = Lasting(say)
        self._lasting.begun.append(self._aux.begun)
        self._watch = Watch(PING_INTERVAL, say, self._lasting.look)
        self._secrets = Secrets((), {})
        self._deployment: dict[str, Any] | None = None  # the newest
        self._told: dict[str, Any] | None = None  # the one that the model knows
        self._loaded: Loaded | None = None
        self._executor: Executor | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, sock: socket.socket, foreign: set[int]) -> int:
        await self._loop.create_connection(lambda: self._channel, sock=sock)
        with contextlib.suppress(NotImplementedError):
            self._loop.add_signal_handler(signal.SIGTERM, self._stop_soon)
        doors = ((self._outbox, "put"), (self._channel, "send"), (self._channel, "send_split"))
        Forks(self._loop, open_descriptors() - foreign, doors)
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        mine = wire.WorkerHello(wire.VERSION, os.getpid(), platform.python_version(), devices)
        self._send(wire.HELLO, mine)
        self._spawn(self._ping())
        self._hello.add_done_callback(self._start_loading)
        return await self._done

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _start_loading(self, hello: asyncio.Future[wire.Hello]) -> None:
        threading.Thread(target=self._load, args=(hello.result(),), name="loader", daemon=True).start()

    def _load(self, hello: wire.Hello) -> None:
        """On the loader's thread: everything from import to load()."""
        self._lasting.loading[threading.get_ident()] = (time.monotonic(), ())
        asked = ports.Asked(hello.taken_ports)
        try:
            sys.path.extend(path for path in hello.plugin_dirs if path not in sys.path)
            spec = plain.to_spec(hello.model)
            if not terminal.is_there:  # where a debugger may hold the loop
                places = [str(place) for place in (spec.root, *spec.import_dirs)]
                self._lasting.of(spec.name, places)
                self._watch.start(places)
            if self._refusal:
                raise Unloadable(self._refusal)
            methods = frozenset(hello.endpoint_methods)
            loaded = load(spec, self._secrets, hello.deployment, methods, self._loop, self._tell_described)
            own = ports.listening(os.getpid())
            if (port := ports.foreign(spec, hello.taken_ports, asked.found, own)) is not None:
                raise Unloadable(ports.advice(spec.name, port))
            found = replace(adapter.capabilities(loaded.model, loaded.descriptor), ports=tuple(sorted(own)))
            ready = encoded(found)
        except BaseException as error:
            failure = self._load_failure(error, hello, asked.found)
            self._outbox.put(self._write, wire.ERROR, encode_failure(failure))
        else:
            self._outbox.put(self._on_loaded, hello, loaded, ready)
        asked.end()
        self._lasting.loading.clear()
        # A child that asked to die with its parent (PR_SET_PDEATHSIG) dies when the *thread* that started it ends.
        threading.Event().wait()

    def _tell_described(self, model: Any, descriptor: adapter.Descriptor) -> None:
        """Say what the class can do; what it says only when it is loaded comes with `ready`."""
        with contextlib.suppress(Exception):
            self._outbox.put(self._write, wire.DESCRIBED, encoded(adapter.capabilities(model, descriptor)))

    def _load_failure(self, error: BaseException, hello: wire.Hello, asked: Collection[int]) -> wire.Failure:
        if not isinstance(error, (Unloadable, ConfigError, adapter.ModelDefinitionError)):
            with contextlib.suppress(Exception):
                spec = plain.to_spec(hello.model)
                say(trace_of(error, spec))
                terminal.examine(error, spec.root)
        # A definition, an import or a missing file does not get better by itself; a load() may.
        unfixable = isinstance(error, (Unloadable, ConfigError, adapter.ModelDefinitionError))
        text = str(error) if isinstance(error, (Unloadable, ConfigError)) else text_of(error)
        text = addressed(text + notes_of(error), hello.model["name"])
        with contextlib.suppress(Exception):  # a failure is told, whatever an advice trips over
            text += self._advice(error, text, hello, asked)
        return wire.Failure(503, "model_failed", text, reason=text, fatal=unfixable or not may_help(error))

    def _advice(self, error: BaseException, text: str, hello: wire.Hello, asked: Collection[int]) -> str:
        if terminal.has_quit(error):
            return terminal.about_quit()
        if isinstance(error, ImportError) and is_missing(error):
            return about_missing(error, hello.model)
        if isinstance(error, ImportError) and (told := about_taken(error)):
            return told
        if (variable := missing_variable(error)) is not None:
            return about_variable(variable, hello.model["name"])
        if secret := missing_secret(error):
            return about_secret(secret.name, secret.is_declared)
        if told := about_place(error, hello.model.get("data_dir")):
            return told
        if not isinstance(error, Unloadable):
            for port in hello.taken_ports:
                if port in asked or str(port) in text or "ddress already in use" in text:
                    return f"; {ports.advice(hello.model['name'], port)}"
        return ""

    def _on_loaded(self, hello: wire.Hello, loaded: Loaded, ready: bytes) -> None:
        self._loaded = loaded
        self._executor = Executor(self._loop, self._channel, self._outbox, self._aux, loaded, hello)
        self._lasting.begun += (pool.begun for pool in self._executor.pools)
        say(f"ready: {loaded.spec.target} with {', '.join(loaded.descriptor.methods) or 'websocket'}")
        self._write(wire.READY, ready)
        self._tell_deployment()

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_frame(self, kind: int, call: int, payload: memoryview) -> None:
        if kind == wire.REQ:
            assert self._executor is not None, "req before ready"
            head, body = wire.split(wire.Req, payload)
            self._executor.start(call, head, bytes(body))
        elif kind == wire.CREDIT:
            credit = wire.decode_head(wire.Credit, payload)
            if self._executor is not None:
                self._executor.grant(call, credit.items, credit.size)
        elif kind == wire.MESSAGE:
            if self._executor is not None:
                self._executor.message(call, bytes(payload))
        elif kind == wire.CANCEL:
            if self._executor is not None:
                self._executor.cancel(call)
        elif kind == wire.HELLO:
            hello = wire.decode_head(wire.Hello, payload)
            self._secrets = Secrets(tuple(hello.model["secrets"]), hello.secrets, hello.model["config"].get("secrets"))
            self._deployment = self._told = hello.deployment
            self._hello.set_result(hello)
        elif kind == wire.UPDATE:
            self._update(wire.decode_head(wire.Update, payload))
        elif kind == wire.SCRAPE:
            self._write(wire.METRICS, _model_metrics(self._loaded))
        elif kind == wire.WHOSE:
            self._spawn(self._tell_whose(wire.decode_head(wire.Whose, payload)))
        elif kind == wire.SHUTDOWN:
            self._spawn(self._shutdown(wire.decode_head(wire.Shutdown, payload).grace))
        elif kind != wire.PING:
            raise wire.WireError(f"unknown frame {kind} from the gateway")

    def _on_lost(self, error: Exception | None) -> None:
        # The gateway is gone. Model code may hang on to its threads; nothing it does matters any more.
        os._exit(1 if error is not None else 0)

    def _send(self, kind: int, value: Any) -> None:
        self._write(kind, wire.encode(value))

    def _write(self, kind: int, payload: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._channel.send_split(kind, 0, payload)

    def _update(self, update: wire.Update) -> None:
        if update.secrets is not None:
            self._secrets.replace(update.secrets)
        if update.deployment is not None:
            self._deployment = update.deployment
            self._tell_deployment()

    def _tell_deployment(self) -> None:
        """Call setup_environment again, once the model is there, and only for news."""
        if self._loaded is None or self._deployment == self._told:
            return
        self._told = self._deployment
        if self._loaded.descriptor.setup_environment is not None:
            self._spawn(self._try("setup_environment", self._loaded.descriptor.setup_environment, self._deployment))

    async def _try(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        """Run a function of the model's on a thread, or on the loop if it is a coroutine's; log what it raises."""
        try:
            result = function(*args) if adapter.kind_of(function) == "async" else await self._aux.run(function, *args)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            assert self._loaded is not None
            log(error, name, self._loaded.spec, name)

    async def _tell_whose(self, asked: wire.Whose) -> None:
        asked.is_mine = await self._aux.run(owns, asked.client_port, asked.server_port)
        self._send(wire.WHOSE, asked)

    async def _ping(self) -> None:
        """A heartbeat from the loop, with how late the loop was: a blocked one looks stale, and says so after."""
        number = 0
        while True:
            due = self._loop.time() + PING_INTERVAL
            await asyncio.sleep(PING_INTERVAL)
            number += 1
            self._watch.beat()
            self._send(wire.PING, wire.Ping(number, max(0.0, self._loop.time() - due)))

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _stop_soon(self) -> None:
        self._spawn(self._shutdown(5.0))

    async def _shutdown(self, grace: float) -> None:
        """Let calls finish, unload, exit; in order as far as the time goes, and never later."""
        if self._executor is not None:
            self._executor.hurry(grace / 2)
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._leave())
        await asyncio.wait([self._leaving], timeout=grace)  # and no longer, though a thread of the model's may hang
        if not self._done.done():
            self._done.set_result(0)

    async def _leave(self) -> None:
        if self._executor is not None:
            await self._executor.drained()
        unload = getattr(self._loaded.model, "unload", None) if self._loaded is not None else None
        if unload is not None:
            await self._try("unload", unload)


def _model_metrics(loaded: Loaded | None) -> bytes:
    """What the model registered with prometheus_client, if it uses it at all."""
    client = sys.modules.get("prometheus_client")
    if client is None or loaded is None:
        return b""
    try:
        text: bytes = client.generate_latest()
    except Exception as error:  # of a collector of the model's own
        log(error, "metrics", loaded.spec, "a collector of metrics")
        return b""
    if len(text) > wire.MAX_METRICS:
        say(f"the model's metrics are left out: {len(text)} bytes, at most {wire.MAX_METRICS} are taken")
        return b""
    return text
