"""A real server in a thread of the test: real sockets, protocol, app and hub; only the workers are played."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import trustme
from fakes import FakeReplica, Fakes

from gateway.access.permits import KeyRing
from gateway.dialects.openai import chat, embeddings
from gateway.errors import GatewayError
from gateway.hookspecs import hookimpl
from gateway.hosting.hub import Hub
from gateway.hosting.stored_responses import ResponsesStore
from gateway.http.app import build_app
from gateway.http.dispatch import Dispatcher
from gateway.http.server import GatewayServer, make_server
from gateway.plugins import Plugins
from gateway.runners.call import Call
from gateway.runners.pending import Pending
from gateway.runners.question import Question
from gateway.runners.replica import Launch
from gateway.settings.schema import GatewaySettings, ModelSettings, Settings
from gateway.spec import Capabilities, Limits, MethodInfo, ModelSpec
from gateway.wire.frames import BYTES, WINDOW_BYTES, WINDOW_ITEMS, Resp
from gateway.wire.values import decode, encode

PATIENCE = 60.0  # seconds until a test that waits for what should come at once gives up


@dataclass
class Reply:
    """What a script may give for full control: a whole answer with its head."""

    body: Any
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    raw: bool = False


class Model:
    """A scripted model: its public functions are its methods, run in the gateway's loop.

    One returns a value, or is async, or is an async generator: a stream. `spec` are fields of its ModelSpec.
    """

    def __init__(self, methods: Mapping[str, Callable[[Any], Any]], **spec: Any) -> None:
        self.methods = dict(methods)
        self.spec = spec
        self.calls: list[Call] = []
        self.players: list[Player] = []
        self.begun = threading.Semaphore(0)  # released for every call that runs
        self.stopped = threading.Semaphore(0)  # released for every call whose code has stopped
        self.capabilities = spec.pop("capabilities", {})
        self.slotless: tuple[str, ...] = spec.pop("slotless", ())  # methods that hold no slot
        self.loads: list[Any] = spec.pop("loads", [])  # outcomes of its loads, see `Fakes`
        self.is_good = not self.loads or self.loads[0] is None


class Window:
    """What a stream has under way; the last item may reach beyond it."""

    def __init__(self) -> None:
        self._items = self._size = 0
        self._room = asyncio.Event()

    async def send(self, size: int) -> None:
        while self._items >= WINDOW_ITEMS or self._size >= WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()
        self._items += 1
        self._size += size

    def grant(self, items: int, size: int) -> None:
        self._items -= items
        self._size -= size
        self._room.set()


class Player(FakeReplica):
    """A replica that runs the scripts of its model."""

    def __init__(self, launch: Launch, model: Model) -> None:
        slotless = model.slotless
        methods = tuple(MethodInfo(name=name, kind="async", needs_slot=name not in slotless) for name in model.methods)
        capabilities = Capabilities(methods=methods, **model.capabilities)
        super().__init__(launch, Fakes(capabilities=capabilities))
        self.fakes.loads = model.loads
        self.model = model
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._windows: dict[int, Window] = {}

    def open(self, call: Call, ended: Callable[[Call], None]) -> None:
        super().open(call, ended)
        self.model.calls.append(call)
        self.model.begun.release()
        self._tasks[id(call)] = asyncio.get_running_loop().create_task(self._play(call))

    def ask(self, question: Question[Any]) -> None:
        super().ask(question)
        self.model.begun.release()
        self._tasks[id(question)] = asyncio.get_running_loop().create_task(self._play(question))

    def cancel(self, pending: Pending) -> None:
        self.cancelled.append(pending)
        self._tasks[id(pending)].cancel()

    def message(self, call: Call, payload: bytes) -> None:
        """Of a websocket's messages its scripts take none, and end when its client has left."""
        if decode(payload)[0] == "disconnect":
            self.cancel(call)

    async def _play(self, pending: Pending) -> None:
        try:
            if isinstance(pending, Call):
                await self._run(pending)
            elif isinstance(pending, Question):
                value = self.model.methods[pending.ask.what](b"")
                self.say(pending, await value if inspect.isawaitable(value) else value)
        except asyncio.CancelledError:
            self.end(pending)
        except GatewayError as error:
            self.fail(pending, error)
        except Exception as error:
            self.fail(pending, GatewayError(f"the test's own script broke: {error!r}"))
        finally:
            self.model.stopped.release()

    async def _run(self, call: Call) -> None:
        method = self.model.methods[call.req.method]
        value = method(bytes(call.body) if call.req.mode == BYTES or not call.body else decode(call.body))
        if inspect.isawaitable(value):
            value = await value
        if hasattr(value, "__aiter__"):
            await self._stream(call, value)
        else:
            self._reply(call, value)

    def _reply(self, call: Call, value: Any) -> None:
        reply = value if isinstance(value, Reply) else Reply(value)
        kind = BYTES if reply.raw else call.req.mode
        head = Resp(
            reply.status, kind, False, True, reply.content_type, [(n, v) for n, v in reply.headers], raw=reply.raw
        )
        if kind == BYTES:
            call.on_resp(head, reply.body)
        else:
            call.on_resp(head, decode(packed := encode(reply.body)), len(packed))
        self._leave(call)

    async def _stream(self, call: Call, items: AsyncIterator[Any]) -> None:
        """As a worker does it: no more items under way than the client's side has granted."""
        self.stream(call)
        window = self._windows[id(call)] = Window()
        async for item in items:
            await window.send(len(encode(item)))
            self.stream(call, item)
        self.end(call)

    def grant(self, call: Call) -> None:
        window = self._windows.get(id(call))
        if window is not None:
            window.grant(call.owed, call.owed_size)
        super().grant(call)


class Served:
    """The running gateway of a test. Leaving the block ends it."""

    def __init__(
        self,
        models: Mapping[str, Model],
        plugins: list[ModuleType] | None = None,
        tables: Mapping[str, ModelSettings] | None = None,
        **gateway: Any,
    ) -> None:
        self.models = dict(models)
        gateway.setdefault("api_key", None)
        self.settings = Settings(gateway=GatewaySettings(**gateway), models=tables or {})
        self._plugins = plugins or []
        self.loop = asyncio.new_event_loop()
        self.hub: Hub
        self.keys: KeyRing
        self.responses: ResponsesStore
        self.app: Dispatcher
        self.server: GatewayServer
        self.port = 0
        self._up: Future[None] = Future()
        self._down = asyncio.Event()
        self._kept: list[http.client.HTTPConnection] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.result(PATIENCE)
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.call_soon_threadsafe(self._down.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server did not end"
        for connection in self._kept:
            connection.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        try:
            specs = [
                ModelSpec(
                    name=name,
                    target="x:X",
                    root=Path(),
                    **{**model.spec, "limits": Limits(**{"slots": 4, **model.spec.get("limits", {})})},
                )
                for name, model in self.models.items()
            ]
            self.hub = Hub(self.settings, self._load_plugins(), specs)
            self.keys = KeyRing(self.settings.gateway.api_key, self.settings.gateway.keys_file)
            self.responses = ResponsesStore(self.settings.gateway.responses)
            self.responses.open()
            self.hub.start()
            for name, model in self.hub.catalog.models.items():
                if self.models[name].is_good and not self.hub.is_lazy(name):
                    await model.settled()
            self.app = build_app(self.hub, self.keys, self.responses)
            self.server = make_server(self.app, self.settings)
            serving = asyncio.create_task(self.server.serve([sock]))
            await self.server.accepting.wait()
            self._up.set_result(None)
        except BaseException as error:
            self._up.set_exception(error)
            return
        await self._down.wait()
        await self.hub.stop(0)
        # Not the server's own way, which takes a fifth of a second; the end-to-end tests go that one.
        for server in self.server.servers:
            server.close()
        for connection in list(self.server.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        serving.cancel()

    def _load_plugins(self) -> Plugins:
        fake = ModuleType("fake_runner")
        fake.register_runners = hookimpl(lambda register: register("process", self._launch))  # type: ignore[attr-defined]
        plugins = Plugins()
        for module in (*self._plugins, fake, chat, embeddings):
            plugins.register(module, module.__name__, source="test")
        assert not plugins.problems
        return plugins

    def _launch(self, launch: Launch) -> Player:
        model = self.models[launch.spec.name]
        model.players.append(Player(launch, model))
        return model.players[-1]

    # ── talking to it ────────────────────────────────────────────────────────────────────────────────────────────

    def do(self, work: Callable[[], Any] | Awaitable[Any]) -> Any:
        """Run a function or a coroutine in the server's loop."""

        async def run() -> Any:
            return await work if inspect.isawaitable(work) else work()  # type: ignore[operator]

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when something is so in the server's loop."""

        async def wait() -> None:
            while not condition():  # noqa: ASYNC110  (anything may be asked for; most of it tells nobody)
                await asyncio.sleep(0.005)

        self.do(wait())

    def keep_busy(self, name: str, path: str = "/models/{}/predict", body: Any = None) -> None:
        """Have a request run until the server ends."""
        connection = self.connect()
        connection.request("POST", path.format(name), b"{}" if body is None else json.dumps(body).encode())
        assert self.models[name].begun.acquire(timeout=PATIENCE)
        self._kept.append(connection)

    def connect(self) -> http.client.HTTPConnection:
        if self.settings.gateway.tls_cert is not None:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=unchecked())
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own. `_` in names of headers is `-`."""
        connection = self.connect()
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, b"{}" if body is None else body, **headers)

    @contextmanager
    def busy(self, name: str, path: str = "/models/{}/predict", body: Any = None) -> Iterator[Waiting]:
        """A request on its way, whose code runs when the block begins; at its end the client leaves."""
        connection = self.connect()
        connection.request("POST", path.format(name), b"{}" if body is None else json.dumps(body).encode())
        assert self.models[name].begun.acquire(timeout=PATIENCE)
        try:
            yield Waiting(connection)
        finally:
            connection.close()

    def send(self, data: bytes) -> bytes:
        """Everything that comes back for some bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as sock:
            sock.sendall(data)
            parts = []
            while part := sock.recv(65536):
                parts.append(part)
        return b"".join(parts)


@dataclass
class Waiting:
    """A request without its answer yet."""

    connection: http.client.HTTPConnection

    def answer(self) -> Answer:
        response = self.connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())


@dataclass
class Answer:
    status: int
    pairs: list[tuple[str, str]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.pairs}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


def certificate(place: Path) -> dict[str, Path]:
    """The settings of a certificate, which is made."""
    settings = {"tls_cert": place / "cert.pem", "tls_key": place / "key.pem"}
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(settings["tls_cert"]))
    settings["tls_key"].touch(0o600)
    issued.private_key_pem.write_to_path(str(settings["tls_key"]))
    return settings


def unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
