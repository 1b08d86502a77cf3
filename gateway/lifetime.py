"""The life of the gateway process, from bound sockets to exit status. The caller handles the output for people.

1. workers are spawned and begin to load  2. meanwhile the server is imported  3. the socket accepts requests
4. once the models are loaded, what no call of a model needs is imported: the web framework
5. SIGTERM or SIGINT: readiness becomes 503; requests are still served for `drain_delay`  6. the listener closes
7. running calls may finish within `drain_timeout`  8. workers unload and exit  9. exit status 0

A second signal ends open requests with an error, kills the workers, and exits immediately with 128 + its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import ConfigError
from .files import scratch
from .hosting.load_audit import tell_start
from .settings.bind import url_of
from .settings.schema import USUAL_FILE
from .system import adopted_processes
from .telemetry.audit import record, refused, user
from .wording import counted

if TYPE_CHECKING:
    from .access.permits import KeyRing
    from .hosting.file_watch import FilesAtLoad
    from .hosting.hub import Hub
    from .hosting.stored_responses import ResponsesStore
    from .http.dispatch import Dispatcher
    from .http.server import GatewayServer
    from .inspection.inventory import Inventory
    from .settings.schema import Settings

log = logging.getLogger("gateway.serve")

FILES_POLL = 30.0  # seconds between two checks of the key file and of the certificate files
FAREWELL = 0.3  # seconds for the last answers after a second signal; the documented limit is 1 s in all
LAST_WRITES = 5.0  # seconds for clients to read their answers after every model has stopped

# Thresholds of the garbage collector, by generation. Python's defaults of 700, 10 and 10 suit scripts. Here a full
# collection would pause every stream and find little, because the objects of start-up are frozen.
COLLECT_AFTER = (20_000, 20, 100)

# Seconds. At the start a thread imports modules beside the event loop, which would wait this long at each turn. The
# default of 5 ms suits the time after that.
SWITCH_INTERVAL = 0.0005
FIRST_LOADS = 1.0  # seconds for the loads of the start, before the rest is imported beside those that take longer
FIRST_CALLS = 0.1  # seconds for the calls of clients that have waited for the loads

Watch = Callable[["Hub", "KeyRing", asyncio.Event], Coroutine[Any, Any, None]]


def serve(
    found: Inventory,
    sockets: Sequence[socket.socket],
    watch: Watch,
    *,
    admin: socket.socket | None = None,
    reload: bool = False,
    settings_again: Callable[[], Settings] | None = None,
) -> int:
    """Serve the models on the sockets until a signal. Returns the exit status.

    `watch` runs as a task and reports to people; it gets the hub, the keys, and an event that is set when requests are
    accepted. `admin` is the socket for operators. With `reload`, models are reloaded when their files change.
    `settings_again` reads the settings as at the start; it is called on SIGHUP and, with `reload`, when their file
    changes.

    Raises:
        ConfigError: the models cannot be hosted with these settings.
    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Life(found, list(sockets), watch, admin, reload, settings_again).run())


class _Life:
    def __init__(
        self,
        found: Inventory,
        sockets: list[socket.socket],
        watch: Watch,
        admin: socket.socket | None,
        reload: bool,
        settings_again: Callable[[], Settings] | None,
    ) -> None:
        from .access.permits import KeyRing
        from .hosting.stored_responses import ResponsesStore

        self._found, self._sockets, self._watch = found, sockets, watch
        self._admin, self._reload, self._settings_again = admin, reload, settings_again
        self._server: GatewayServer | None = None
        self._loaded: FilesAtLoad | None = None  # with `reload`
        self._looking: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[Any]] = set()  # checks of keys and certificate after SIGHUP
        self._ordered = ""  # actor of a requested check of settings and models, until it begins
        self._taking_away: asyncio.Task[None] | None = None
        self._settings = found.settings.gateway
        self._hub: Hub | None = None
        self._keys = KeyRing(self._settings.api_key, self._settings.keys_file)
        self._responses = ResponsesStore(self._settings.responses)
        self._began, self._stopped, self._why = time.monotonic(), 0.0, ""
        self._stop = asyncio.Event()
        self._aborting: asyncio.Task[None] | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        usual = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._hub = hub = _host(self._found)
        loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)
        self._taking_away = loop.create_task(adopted_processes.take_away())
        threading.Thread(target=scratch.clear_leftovers, name="leftovers", daemon=True).start()
        await self._look_at_files(hub)
        self._responses.open()
        hub.start()
        accepting = asyncio.Event()
        watching = loop.create_task(self._watch(hub, self._keys, accepting), name="the start-up report")
        watching.add_done_callback(_log_failure)
        # On a thread, because the workers' handshakes need the event loop.
        app = await asyncio.to_thread(_build_app, hub, self._keys, self._responses)
        if self._stop.is_set():
            await self._end(watching)
            return 0
        return await self._serve(app, accepting, watching, partial(_settle, usual))

    async def _serve(
        self, app: Dispatcher, accepting: asyncio.Event, watching: asyncio.Task[None], settle: Callable[[], None]
    ) -> int:
        from .http.server import make_server

        self._server = server = make_server(app, self._found.settings, self._admin)
        serving = asyncio.create_task(server.serve(self._sockets))
        await _first(serving, server.accepting.wait())
        accepting.set()
        assert self._hub is not None
        self._tell_start(self._hub)
        loads = asyncio.create_task(tell_start(self._hub.catalog.models.values()), name="the audit of the first loads")
        loads.add_done_callback(_log_failure)
        works = (
            self._finish_start(app, settle),
            self._watch_files(),
            self._watch_settings(),
            self._watch_keys(),
            self._watch_certificate(server),
        )
        others = [asyncio.create_task(work) for work in works]
        await _first(serving, self._stop.wait())
        for task in (*others, loads):
            task.cancel()
        if serving.done():  # the server ended without a signal
            refused("the server", "stop", "it ended unexpectedly")
            await self._end(watching)
            serving.result()
            return 1
        await self._drain(server, serving, watching)
        return 0

    async def _drain(self, server: GatewayServer, serving: asyncio.Task[None], watching: asyncio.Task[None]) -> None:
        assert self._hub is not None
        self._hub.draining = True
        if self._settings.drain_delay:
            log.info("stopping in %g s; readiness is 503 from now on", self._settings.drain_delay)
            await asyncio.sleep(self._settings.drain_delay)
        server.should_exit = True
        await server.closing.wait()
        running = sum(model.limiter.running + model.limiter.queued for model in self._hub.catalog.models.values())
        if running:
            calls = f"{running} call{'s' * (running != 1)}"
            log.info("stopping: up to %g s for %s; a second signal ends them", self._settings.drain_timeout, calls)
        await self._end(watching)
        self._hub.tails.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITES):
                await asyncio.shield(serving)
        server.force_exit = True  # close connections whose clients have not read their answers
        await serving
        self._responses.close()  # after the last answers have been stored
        self._tell_stop(f"done in {time.monotonic() - self._stopped:.1f} s")
        log.info("stopped")

    async def _finish_start(self, app: Dispatcher, settle: Callable[[], None]) -> None:
        """Import what the calls of models do not need, when it delays the first of them least."""
        assert self._hub is not None
        loads = [asyncio.ensure_future(model.settled()) for model in self._hub.catalog.models.values()]
        if loads:
            await asyncio.wait(loads, timeout=FIRST_LOADS)
        await asyncio.sleep(FIRST_CALLS)
        try:
            await asyncio.to_thread(app.others.build)
        except Exception:  # the next request for one of them tries again
            log.exception("the routes other than those of models could not be built")
        finally:
            settle()

    def _tell_start(self, hub: Hub) -> None:
        settings, models, known = self._settings, len(hub.catalog.models), self._keys.count
        url = url_of(settings.host, self._sockets[0].getsockname()[1], settings.tls_cert is not None)
        of = f"{counted(models, 'model')}, {counted(known, 'key')}"
        told = f"version {__version__} at {url}, process {os.getpid()}, {of}"
        more = {"version": __version__, "url": url, "pid": os.getpid(), "models": models, "keys": known}
        record(user(os.geteuid()), "start", outcome=told, more=more)

    def _tell_stop(self, outcome: str) -> None:
        record(self._why, "stop", outcome=outcome, more={"pid": os.getpid()})

    async def _look_at_files(self, hub: Hub) -> None:
        """Record the files of all models before their first load."""
        if self._reload:
            from .hosting.file_watch import FilesAtLoad

            self._loaded = FilesAtLoad()
            await self._loaded.changed(hub.catalog.models)

    async def _watch_files(self) -> None:
        if self._loaded is not None:
            from .hosting.file_watch import watch

            assert self._hub is not None
            await watch(self._hub, self._loaded)

    async def _watch_settings(self) -> None:
        if self._reload:
            from .hosting.settings_file import SETTINGS, changes_of

            async for _ in changes_of(self._found.settings.file or Path(USUAL_FILE)):
                self._order_look(SETTINGS)

    async def _watch_keys(self) -> None:
        while True:
            await asyncio.sleep(FILES_POLL)
            try:
                await self._keys.reload_if_changed()
            except Exception:
                log.exception("the file of keys could not be checked")

    async def _watch_certificate(self, server: GatewayServer) -> None:
        while server.certificate is not None:
            await asyncio.sleep(FILES_POLL)
            await server.certificate.reload_if_changed()

    async def _end(self, watching: asyncio.Task[None]) -> None:
        assert self._hub is not None
        watching.cancel()
        await asyncio.wait([watching])
        await self._hub.stop(self._settings.drain_timeout)

    # ── SIGHUP ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_hang_up(self) -> None:
        looks: list[Coroutine[Any, Any, Any]] = [self._keys.reload()]
        if self._server is not None and self._server.certificate is not None:
            looks.append(self._server.certificate.reload_if_changed())
        for look in looks:
            task = asyncio.create_task(look, name="the look at keys and certificate")
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)
            task.add_done_callback(_log_failure)
        self._order_look("SIGHUP")

    def _order_look(self, actor: str) -> None:
        self._ordered = actor
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_again(), name="the look at settings and models")
            self._looking.add_done_callback(_log_failure)

    async def _look_again(self) -> None:
        """Read the settings again, then scan the model roots."""
        from .access.callers import everybody
        from .hosting.model_roots import look_again
        from .hosting.reload import use_settings

        assert self._hub is not None
        while actor := self._ordered:  # repeat if another request came meanwhile
            self._ordered = ""
            try:
                if self._settings_again is not None:
                    await use_settings(self._hub, await asyncio.to_thread(self._settings_again), actor)
            except ConfigError as error:
                refused(actor, "change of settings", f"they stay as they were: {error}")
            await look_again(self._hub, everybody, actor)

    # ── signals ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_signal(self, number: int) -> None:
        if not self._stop.is_set():
            self._why, self._stopped = signal.Signals(number).name, time.monotonic()
            self._tell_stop(f"begun; it ran for {self._stopped - self._began:.0f} s")
            self._stop.set()
        elif self._aborting is None:
            self._aborting = asyncio.get_running_loop().create_task(self._abort(number))

    async def _abort(self, number: int) -> None:
        """Fail the open calls and exit. The reaper kills the process group of every worker."""
        log.warning("stopping at once")
        refused(f"a second {signal.Signals(number).name}", "stop", "open requests are ended")
        if self._hub is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(FAREWELL):
                    await self._hub.stop(0)
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(128 + number)


def _host(found: Inventory) -> Hub:
    from .directories.model_warnings import Remarks
    from .hosting.hub import Hub
    from .hosting.model_roots import host_broken

    hub = Hub(found.settings, found.plugins, found.specs, problems=found.problems, devices=found.devices)
    hub.only, hub.remarks = found.only, Remarks(found.remarks)
    host_broken(hub, found.problems)
    return hub


def _build_app(hub: Hub, keys: KeyRing, responses: ResponsesStore) -> Dispatcher:
    """Build the app, on a thread: this imports uvicorn and the routes."""
    from .http.app import build_app

    return build_app(hub, keys, responses)


def _settle(switch_interval: float) -> None:
    """Exclude the objects of start-up, which are never freed, from garbage collection; and collect less often."""
    sys.setswitchinterval(switch_interval)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    gc.enable()


async def _first(task: asyncio.Task[Any], event: Coroutine[Any, Any, Any]) -> None:
    """Wait for the event or the end of the task, whichever comes first."""
    waiting = asyncio.ensure_future(event)
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s failed", task.get_name(), exc_info=error)
