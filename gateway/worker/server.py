"""The worker's end of the channel: load the model, then answer calls until the channel ends.

Handles frames and states; `calls/executor.py` runs the calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
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

from ..errors import ConfigError
from ..system.begun import Begun
from ..system.process_family import owns
from ..wire import frames, plain
from ..wire.values import WireError, encode
from ..wording import addressed
from .bodies.failures import encode_failure, log, missing_secret, notes_of, say, text_of, trace_of
from .calls.blocked_loop import Watch
from .calls.credit_window import Window
from .calls.executor import Executor
from .calls.long_calls import Lasting
from .calls.threads import Outbox, Pool
from .direct_reading import DirectReading
from .loading import ports, terminal
from .loading.descriptor import Descriptor, ModelDefinitionError, capabilities, kind_of
from .loading.forks import Forks, open_descriptors
from .loading.load_report import encoded
from .loading.loader import Loaded, Unloadable, load
from .loading.retry_advice import about_place, about_secret, about_variable, may_help, missing_variable
from .loading.secrets import Secrets
from .thread_channel import ThreadChannel

PING_INTERVAL = 1.0  # seconds
UNBOUNDED = 1 << 62  # the gateway bounds every body
AUX_THREADS = 40  # for hooks, setup_environment and unload; Truss's server has as many for everything


class Server:
    """One worker.

    `serve` returns the exit status. If there is a `refusal`, no model is loaded, and the refusal is the reason.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, begun: Begun, refusal: str = "") -> None:
        self._loop, self._begun = loop, begun
        self._refusal = refusal
        self._channel = ThreadChannel(self._on_frame, self._on_lost, max_pending=UNBOUNDED)
        self._hello: asyncio.Future[frames.Hello] = loop.create_future()
        self._done: asyncio.Future[int] = loop.create_future()
        self._outbox = Outbox(loop)
        self._aux = Pool(AUX_THREADS, "hook", self._outbox)
        self._lasting = Lasting(say)
        self._lasting.begun.append(self._aux.begun)
        self._watch = Watch(PING_INTERVAL, say, self._lasting.look)
        self._secrets = Secrets((), {})
        self._deployment: dict[str, Any] | None = None  # the newest
        self._told: dict[str, Any] | None = None  # the last one passed to the model
        self._loaded: Loaded | None = None
        self._executor: Executor | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, sock: socket.socket, foreign: set[int]) -> int:
        await self._loop.create_connection(lambda: self._channel, sock=sock)
        with contextlib.suppress(NotImplementedError):
            self._loop.add_signal_handler(signal.SIGTERM, self._stop_soon)
        self._direct = DirectReading(self._loop, self._channel, self._outbox)
        doors = [
            (self._outbox, "put"),
            *((self._channel, name) for name in ("send", "send_soon", "send_split", "send_now")),
        ]
        self._forks = Forks(self._loop, open_descriptors() - foreign, doors)
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        mine = frames.WorkerHello(frames.VERSION, os.getpid(), platform.python_version(), devices)
        self._send(frames.HELLO, mine)
        self._spawn(self._ping())
        self._hello.add_done_callback(self._start_loading)
        return await self._done

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _start_loading(self, hello: asyncio.Future[frames.Hello]) -> None:
        threading.Thread(target=self._load, args=(hello.result(),), name="loader", daemon=True).start()

    def _load(self, hello: frames.Hello) -> None:
        """Do everything from import to load(), on the loader's thread."""
        gc.enable()
        self._lasting.loading[threading.get_ident()] = (time.monotonic(), ())
        asked = ports.Asked(hello.taken_ports)
        try:
            sys.path.extend(path for path in hello.plugin_dirs if path not in sys.path)
            spec = plain.to_spec(hello.model)
            if not terminal.is_there:  # a debugger may block the loop
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
            found = replace(capabilities(loaded.model, loaded.descriptor), ports=tuple(sorted(own)))
            ready = encoded(found)
        except BaseException as error:
            failure = self._load_failure(error, hello, asked.found)
            self._outbox.put(self._write, frames.ERROR, encode_failure(failure))
        else:
            self._outbox.put(self._on_loaded, hello, loaded, ready)
        asked.end()
        self._lasting.loading.clear()
        # Keep this thread: a child that asked to die with its parent (PR_SET_PDEATHSIG) dies when the *thread* that
        # started it ends.
        threading.Event().wait()

    def _tell_described(self, model: Any, descriptor: Descriptor) -> None:
        """Report the capabilities of the class. Those known only after the load come with `ready`."""
        with contextlib.suppress(Exception):
            self._outbox.put(self._write, frames.DESCRIBED, encoded(capabilities(model, descriptor)))

    def _load_failure(self, error: BaseException, hello: frames.Hello, asked: Collection[int]) -> frames.Failure:
        if not isinstance(error, (Unloadable, ConfigError, ModelDefinitionError)):
            with contextlib.suppress(Exception):
                spec = plain.to_spec(hello.model)
                say(trace_of(error, spec))
                terminal.examine(error, spec)
        # A bad definition, import or missing file fails again; load() may succeed in a retry.
        unfixable = isinstance(error, (Unloadable, ConfigError, ModelDefinitionError))
        text = str(error) if isinstance(error, (Unloadable, ConfigError)) else text_of(error)
        text = addressed(text + notes_of(error), hello.model["name"])
        with contextlib.suppress(Exception):  # a failure is reported even if the advice fails
            text += self._advice(error, text, hello, asked)
        return frames.Failure(503, "model_failed", text, reason=text, fatal=unfixable or not may_help(error))

    def _advice(self, error: BaseException, text: str, hello: frames.Hello, asked: Collection[int]) -> str:
        if terminal.has_quit(error):
            return terminal.about_quit()
        if isinstance(error, ImportError):
            from .loading.advice import about_missing, about_taken, is_missing  # much to import, and for failures only

            if is_missing(error):
                return about_missing(error, hello.model)
            if told := about_taken(error):
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

    def _on_loaded(self, hello: frames.Hello, loaded: Loaded, ready: bytes) -> None:
        self._loaded = loaded
        self._executor = Executor(
            self._loop, self._channel, self._outbox, self._aux, loaded, hello, self._begun.mark, self._direct
        )
        self._lasting.begun += (pool.begun for pool in self._executor.pools)
        self._forks.guard(self._executor.slots, "pass_on")
        self._forks.guard(Window, "wait")  # before each item of a thread's stream
        say(f"ready: {loaded.spec.target} with {', '.join(loaded.descriptor.methods) or 'websocket'}")
        self._write(frames.READY, ready)
        self._tell_deployment()

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_frame(self, kind: int, call: int, payload: memoryview) -> None:
        if kind == frames.REQ:
            assert self._executor is not None, "req before ready"
            head, body = frames.split(frames.Req, payload)
            self._executor.start(call, head, body if len(payload) > frames.MAX_FRAME else bytes(body))
        elif kind == frames.ASK:
            assert self._executor is not None, "ask before ready"
            self._executor.questions.ask(call, frames.decode_head(frames.Ask, payload))
        elif kind == frames.CREDIT:
            credit = frames.decode_head(frames.Credit, payload)
            if self._executor is not None:
                self._executor.grant(call, credit.items, credit.size)
        elif kind == frames.MESSAGE:
            if self._executor is not None:
                self._executor.message(call, bytes(payload))
        elif kind == frames.CANCEL:
            if self._executor is not None:
                self._executor.cancel(call)
        elif kind == frames.RECALL:
            if self._executor is not None:
                self._executor.recall(call)
        elif kind == frames.HELLO:
            hello = frames.decode_head(frames.Hello, payload)
            self._secrets = Secrets(tuple(hello.model["secrets"]), hello.secrets, hello.model["config"].get("secrets"))
            self._deployment = self._told = hello.deployment
            self._hello.set_result(hello)
        elif kind == frames.UPDATE:
            self._update(frames.decode_head(frames.Update, payload))
        elif kind == frames.SCRAPE:
            self._write(frames.METRICS, _model_metrics(self._loaded))
        elif kind == frames.WHOSE:
            self._spawn(self._tell_whose(frames.decode_head(frames.Whose, payload)))
        elif kind == frames.SHUTDOWN:
            self._spawn(self._shutdown(frames.decode_head(frames.Shutdown, payload).grace))
        elif kind != frames.PING:
            raise WireError(f"unknown frame {kind} from the gateway")

    def _on_lost(self, error: Exception | None) -> None:
        # The gateway is gone, so exit. Threads of the model may hang, but no result is needed any more.
        os._exit(1 if error is not None else 0)

    def _send(self, kind: int, value: Any) -> None:
        self._write(kind, encode(value))

    def _write(self, kind: int, payload: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._channel.send_split(kind, 0, payload)

    def _update(self, update: frames.Update) -> None:
        if update.secrets is not None:
            self._secrets.replace(update.secrets)
        if update.deployment is not None:
            self._deployment = update.deployment
            self._tell_deployment()

    def _tell_deployment(self) -> None:
        """Call setup_environment if the model is loaded and the environment has changed."""
        if self._loaded is None or self._deployment == self._told:
            return
        self._told = self._deployment
        if self._loaded.descriptor.setup_environment is not None:
            self._spawn(self._try("setup_environment", self._loaded.descriptor.setup_environment, self._deployment))

    async def _try(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        """Run a function of the model, on a thread or (async) on the event loop; log exceptions."""
        try:
            result = function(*args) if kind_of(function) == "async" else await self._aux.run(function, *args)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            assert self._loaded is not None
            log(error, name, self._loaded.spec, name)

    async def _tell_whose(self, asked: frames.Whose) -> None:
        asked.is_mine = await self._aux.run(owns, asked.client_port, asked.server_port)
        self._send(frames.WHOSE, asked)

    async def _ping(self) -> None:
        """Send heartbeats with the lag of the event loop. A blocked loop sends none, and reports its lag afterwards."""
        number = 0
        while True:
            due = self._loop.time() + PING_INTERVAL
            await asyncio.sleep(PING_INTERVAL)
            number += 1
            self._watch.beat()
            self._send(frames.PING, frames.Ping(number, max(0.0, self._loop.time() - due)))

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _stop_soon(self) -> None:
        self._spawn(self._shutdown(5.0))

    async def _shutdown(self, grace: float) -> None:
        """Let calls finish, unload, exit; exit after `grace` seconds in any case."""
        if self._executor is not None:
            self._executor.hurry(grace / 2)
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._leave())
        await asyncio.wait([self._leaving], timeout=grace)  # no longer: a thread of the model may hang
        if not self._done.done():
            self._done.set_result(0)

    async def _leave(self) -> None:
        if self._executor is not None:
            await self._executor.drained()
        unload = getattr(self._loaded.model, "unload", None) if self._loaded is not None else None
        if unload is not None:
            await self._try("unload", unload)


def _model_metrics(loaded: Loaded | None) -> bytes:
    """Return the metrics that the model registered with prometheus_client, if it uses that."""
    client = sys.modules.get("prometheus_client")
    if client is None or loaded is None:
        return b""
    try:
        text: bytes = client.generate_latest()
    except Exception as error:  # raised by a collector of the model
        log(error, "metrics", loaded.spec, "a collector of metrics")
        return b""
    if len(text) > frames.MAX_METRICS:
        say(f"the model's metrics are left out: {len(text)} bytes, at most {frames.MAX_METRICS} are taken")
        return b""
    return text
