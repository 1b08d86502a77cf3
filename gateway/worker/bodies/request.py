"""The Request for methods that take it: Starlette's if installed, otherwise an object with the same attributes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from ...wire.frames import HTTPScope
from . import json_text


class Cancellation:
    """Whether the client has disconnected; can be asked from threads and coroutines."""

    __slots__ = ("_event", "_waiters", "is_set", "was_asked")

    def __init__(self) -> None:
        self.is_set = False
        self.was_asked = False  # asked by the model's code, which may stop by itself
        self._event: threading.Event | None = None  # created on first use: few models need it
        self._waiters: list[asyncio.Future[None]] | None = None

    @property
    def event(self) -> threading.Event:
        with _making_events:
            if self._event is None:
                self._event = threading.Event()
        if self.is_set:  # `set` sets this before it checks the event
            self._event.set()
        return self._event

    def set(self) -> None:
        """Call this on the event loop's thread only."""
        self.is_set = True
        if self._event is not None:
            self._event.set()
        for waiter in self._waiters or ():
            with contextlib.suppress(RuntimeError):  # the model's own loop on a thread may be closed
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    def ask(self) -> bool:
        """Return whether it is set; for code of the model."""
        self.was_asked = True
        return self.is_set

    async def wait(self) -> None:
        if not self.is_set:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters = [*(self._waiters or ()), waiter]
            await waiter


_making_events = threading.Lock()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def build(scope: HTTPScope, body: bytes, cancellation: Cancellation, request_id: str) -> Any:
    """Return a readable request. `is_disconnected()` and `state.watch_disconnect()` follow the call's cancellation."""

    @contextlib.contextmanager
    def watch_disconnect() -> Iterator[threading.Event]:
        cancellation.ask()
        yield cancellation.event

    asgi = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": scope.method,
        "scheme": scope.scheme,
        "path": scope.path,
        "raw_path": scope.path.encode(),
        "query_string": scope.query,
        "root_path": "",
        "headers": list(scope.headers),
        "client": scope.client,
        "server": scope.server,
        "state": {"watch_disconnect": watch_disconnect, "request_id": request_id},
    }
    try:
        from starlette.requests import Request
    except ImportError:
        return PlainRequest(asgi, body, cancellation)
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        cancellation.ask()
        await cancellation.wait()
        return {"type": "http.disconnect"}

    request = Request(asgi, receive)
    # Starlette's is_disconnected polls receive() in an anyio scope; ours reads a flag.
    request._body = body

    async def is_disconnected() -> bool:
        return cancellation.ask()

    request.is_disconnected = is_disconnected  # type: ignore[method-assign]
    return request


class Headers(dict[str, str]):
    """Header values by case-insensitive name."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class PlainRequest:
    """A request without Starlette: method, url, headers, query_params, client, state, body(), json()."""

    def __init__(self, scope: dict[str, Any], body: bytes, cancellation: Cancellation) -> None:
        self.scope, self._body, self._cancellation = scope, body, cancellation
        self.method, self.client = scope["method"], scope["client"]
        self.headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        self.query_params = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        query = scope["query_string"].decode("latin-1")
        host = self.headers.get("host", "localhost")
        self.url = f"{scope['scheme']}://{host}{scope['path']}" + (f"?{query}" if query else "")
        self.state = type("State", (), {})()
        for name, value in scope["state"].items():
            setattr(self.state, name, value)

    async def body(self) -> bytes:
        return self._body

    async def json(self) -> Any:
        return json_text.loads(self._body)

    async def is_disconnected(self) -> bool:
        return self._cancellation.ask()
