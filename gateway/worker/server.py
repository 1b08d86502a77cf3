"""The worker's end of the channel: loads the model, then answers calls until the channel ends.

Knows frames and states; how a call is run is `execution.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from .. import plain, wire
from ..channel import Channel
from ..errors import ConfigError
from . import adapter
from .execution import Executor
from .failures import log
from .loader import Loaded, Unloadable, load
from .threads import Outbox, Pool

PING_INTERVAL = 1.0  # seconds
AUX_THREADS = 8  # for hooks, health checks and setup_environment


class Server:
    """One worker. `serve` returns the exit status."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._channel = Channel(self._on_frame, self._on_lost)
        self._hello: asyncio.Future[wire.Hello] = loop.create_future()
        self._done: asyncio.Future[int] = loop.create_future()
        self._outbox = Outbox(loop)
        self._aux = Pool(AUX_THREADS, "hook", self._outbox)
        self._loaded: Loaded | None = None
        self._executor: Executor | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, sock: socket.socket) -> int:
        await self._loop.create_connection(lambda: self._channel, sock=sock)
        with contextlib.suppress(NotImplementedError):
            self._loop.add_signal_handler(signal.SIGTERM, self._stop_soon)
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        mine = wire.WorkerHello(wire.VERSION, os.getpid(), platform.python_version(), devices)
        self._channel.send(wire.HELLO, 0, wire.encode(mine))
        self._spawn(self._ping())
        hello = await self._hello
        threading.Thread(target=self._load, args=(hello,), name="loader", daemon=True).start()
        return await self._done

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _load(self, hello: wire.Hello) -> None:
        """On the loader's thread: everything from import to load()."""
        try:
            sys.path.extend(path for path in hello.plugin_dirs if path not in sys.path)
            spec = plain.to_spec(hello.model)
            methods = frozenset(hello.endpoint_methods)
            loaded = load(spec, hello.secrets, hello.deployment, methods, self._loop)
            capabilities = adapter.capabilities(loaded.model, loaded.descriptor)
        except BaseException as error:
            failure = self._load_failure(error, hello)
            self._outbox.put(self._send, wire.ERROR, failure)
        else:
            self._outbox.put(self._on_loaded, hello, loaded, capabilities)

    def _load_failure(self, error: BaseException, hello: wire.Hello) -> wire.Failure:
        if not isinstance(error, (Unloadable, ConfigError, adapter.ModelDefinitionError)):
            traceback.print_exception(error)
            sys.stderr.flush()
        # A definition, an import or a missing file does not get better by itself; a load() may.
        unfixable = (Unloadable, ConfigError, adapter.ModelDefinitionError, ImportError, SyntaxError)
        text = str(error) if isinstance(error, (Unloadable, ConfigError)) else f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError):
            text += _pip_line(error.name or "", hello.model.get("extra"))
        return wire.Failure(503, "model_failed", text, reason=text, fatal=isinstance(error, unfixable))

    def _on_loaded(self, hello: wire.Hello, loaded: Loaded, capabilities: Any) -> None:
        self._loaded = loaded
        self._executor = Executor(self._loop, self._channel, self._outbox, self._aux, loaded, hello)
        print(f"ready: {loaded.spec.target} with {', '.join(loaded.descriptor.methods) or 'websocket'}", flush=True)
        self._send(wire.READY, plain.from_capabilities(capabilities))

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
        elif kind == wire.CANCEL:
            if self._executor is not None:
                self._executor.cancel(call)
        elif kind == wire.HELLO:
            self._hello.set_result(wire.decode_head(wire.Hello, payload))
        elif kind == wire.UPDATE:
            self._update(wire.decode_head(wire.Update, payload))
        elif kind == wire.SCRAPE:
            self._channel.send_split(wire.METRICS, 0, _model_metrics())
        elif kind == wire.SHUTDOWN:
            self._spawn(self._shutdown(wire.decode_head(wire.Shutdown, payload).grace))
        elif kind != wire.PING:
            raise wire.WireError(f"unknown frame {kind} from the gateway")

    def _on_lost(self, error: Exception | None) -> None:
        # The gateway is gone. Model code may hang on to its threads; nothing it does matters any more.
        os._exit(1 if error is not None else 0)

    def _send(self, kind: int, value: Any) -> None:
        with contextlib.suppress(ConnectionError):
            self._channel.send_split(kind, 0, wire.encode(value))

    def _update(self, update: wire.Update) -> None:
        loaded = self._loaded
        if loaded is None:
            return
        if update.secrets is not None:
            loaded.secrets.replace(update.secrets)
        setup = loaded.descriptor.setup_environment
        if update.deployment is not None and setup is not None:
            self._spawn(self._set_up(setup, update.deployment))

    async def _set_up(self, setup: Any, deployment: dict[str, Any]) -> None:
        try:
            if adapter.kind_of(setup) == "async":
                await setup(deployment)
            else:
                await self._aux.run(setup, deployment)
        except Exception as error:
            log(error, "setup_environment", str(Path.cwd()))

    async def _ping(self) -> None:
        """A heartbeat from the loop, with how late the loop was: a blocked one looks stale, and says so after."""
        number = 0
        while True:
            due = self._loop.time() + PING_INTERVAL
            await asyncio.sleep(PING_INTERVAL)
            number += 1
            self._send(wire.PING, wire.Ping(number, max(0.0, self._loop.time() - due)))

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _stop_soon(self) -> None:
        self._spawn(self._shutdown(5.0))

    async def _shutdown(self, grace: float) -> None:
        """Let calls finish, unload, exit. The gateway's own clock ends it if this takes too long."""
        deadline = self._loop.time() + grace
        if self._executor is not None:
            await self._executor.drained()
        unload = getattr(self._loaded.model, "unload", None) if self._loaded is not None else None
        if unload is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    if adapter.kind_of(unload) == "async":
                        await unload()
                    else:
                        await self._aux.run(unload)
            except Exception as error:
                log(error, "unload", str(Path.cwd()))
        if not self._done.done():
            self._done.set_result(0)


def _pip_line(module: str, extra: str | None) -> str:
    if extra:
        return f"; run: pip install 'model-gateway[{extra}]'"
    if module.partition(".")[0] in ("fastapi", "starlette", "numpy", "msgpack", "httpx"):
        return "; Truss's image has it, here it comes with: pip install 'model-gateway[truss]'"
    return f"; run: pip install {module.partition('.')[0]}"


def _model_metrics() -> bytes:
    """What the model registered with prometheus_client, if it uses it at all."""
    client = sys.modules.get("prometheus_client")
    return client.generate_latest() if client is not None else b""
