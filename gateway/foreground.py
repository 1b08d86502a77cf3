"""One model in the foreground of a terminal: loaded and called as the gateway does it, with stdin and a debugger.

The worker is the same, in the same environment, on the same devices and in the same sandbox; there is no HTTP, nothing
waits or is limited in time, and nothing is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import termios
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import wire
from .call import Call
from .errors import ConfigError, Crashed, GatewayError
from .hub import Hub
from .runners.process import ProcessReplica

if TYPE_CHECKING:
    from .inventory import Inventory
    from .replica import Terminal

GRACE = 2.0  # seconds for `unload` at the end
AFTER_CTRL_C = 0.5  # the same when somebody is waiting for the prompt
INTERRUPTED = 130  # the exit status after Ctrl-C, as of a shell


def run(found: Inventory, method: str | None, data: bytes | None, terminal: Terminal) -> int:
    """Load the only model of `found` and call it: with `data`, or with each line of stdin. Returns the exit status.

    Raises:
        ConfigError: it has no place or no process of its own, or no such method.
        LoadError: it could not be loaded.
    """
    with _as_it_was():
        try:
            return asyncio.run(_Foreground(found, terminal).run(method, data))
        except KeyboardInterrupt:
            return INTERRUPTED


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """A debugger that is killed at its prompt leaves a terminal that shows no input."""
    before = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        yield
    finally:
        if before is not None:
            termios.tcsetattr(0, termios.TCSANOW, before)


class _Foreground:
    def __init__(self, found: Inventory, terminal: Terminal) -> None:
        self._found, self._spec, self._terminal = found, found.specs[0], terminal
        self._rest = b""  # of stdin

    async def run(self, method: str | None, data: bytes | None) -> int:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        hub = Hub(self._found.settings, self._found.plugins, self._found.specs, devices=self._found.devices)
        replica: ProcessReplica | None = None
        grace = GRACE
        try:
            replica = await self._make(hub)
            await replica.start()
            return await self._serve(replica, method, data)
        except asyncio.CancelledError:
            grace = AFTER_CTRL_C
            raise KeyboardInterrupt from None
        finally:
            if replica is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await replica.stop(grace)
            await hub.stop(0)

    async def _make(self, hub: Hub) -> ProcessReplica:
        spec, settings = self._spec, self._found.settings
        if (runner := settings.model(spec.name).runner) != "process":
            raise ConfigError(f"model '{spec.name}' is run by the runner '{runner}', which has no terminal to give it")
        if refused := hub.place([spec]):
            raise ConfigError(f"model '{spec.name}' has no place: {refused[spec.name][1]}")
        if settings.isolates(spec):
            spec = await hub.isolate(spec)
        return ProcessReplica(replace(hub.launch(spec, 0), terminal=self._terminal, debug=True))

    async def _serve(self, replica: ProcessReplica, method: str | None, data: bytes | None) -> int:
        methods = [one.name for one in replica.capabilities.methods]
        chosen = method or ("predict" if "predict" in methods or not methods else methods[0])
        if chosen not in methods:
            have = ", ".join(methods) or "none"
            raise ConfigError(f"model '{self._spec.name}' has no method '{chosen}' (have: {have})")
        if data is not None:
            return await self._call(replica, chosen, data)
        if os.isatty(0):
            say(f"{self._spec.name} is loaded: write the JSON for {chosen}, a line each; Ctrl-D ends it")
        status = 0
        while not replica.lost.done() and (line := await self._line()) is not None:
            if line.strip():
                status = max(status, await self._call(replica, chosen, line))
        return status

    async def _line(self) -> bytes | None:
        """The next one of stdin; what is behind it is left to the model."""
        while b"\n" not in self._rest:
            if not (chunk := await _read()):
                line, self._rest = self._rest, b""
                return line or None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    async def _call(self, replica: ProcessReplica, method: str, data: bytes) -> int:
        """Print the answer, as it comes; 1 when there is none."""
        try:
            value = json.loads(data)
        except ValueError as error:
            say(f"Error: that is no JSON: {error}")
            return 1
        wants_request = any(one.name == method and one.wants_request for one in replica.capabilities.methods)
        head = [(b"content-type", b"application/json")]
        scope = wire.HTTPScope("POST", f"/v1/models/{self._spec.name}:{method}", b"", head, None, None, "http")
        mode = wire.BYTES if method == "predict" else wire.DATA
        given = scope if wants_request else None
        request = wire.Req(method, mode, False, "application/json", "run", False, None, given)
        body = data if mode == wire.BYTES else wire.encode(value)
        call = Call(request, body, self._spec.limits, asyncio.get_running_loop())
        out = _Output()
        try:
            replica.open(call, lambda call: None)
            with call:
                answer = await call.first()
                if not answer.stream:
                    out.write(bytes(call.reply) if isinstance(call.reply, memoryview) else call.reply)
                while answer.stream and (items := await call.take()) is not None:
                    for item in items:
                        out.write(item)
        except (GatewayError, ConnectionError) as error:
            out.end()
            why = f"; {await replica.lost}" if isinstance(error, (Crashed, ConnectionError)) else ""
            say(f"Error: {method}: {error}{why}")
            return 1
        out.end()
        return int(answer.status >= 400)


class _Output:
    """stdout: text and bytes as they are, all else as a line of JSON."""

    def __init__(self) -> None:
        self._last = b""

    def write(self, value: Any) -> None:
        if isinstance(value, str):
            value = value.encode("utf-8", "replace")
        elif not isinstance(value, bytes):
            self.end()
            value = json.dumps(value, ensure_ascii=False, default=_plain).encode() + b"\n"
        if value:
            self._last = value
            sys.stdout.buffer.write(value)
            sys.stdout.buffer.flush()

    def end(self) -> None:
        """End the line, if one has begun that people read."""
        if self._last and not self._last.endswith(b"\n") and _is_text(self._last):
            self.write(b"\n")


def _is_text(data: bytes) -> bool:
    return b"\0" not in data and data.decode("utf-8", "replace").isprintable()


def _plain(value: Any) -> Any:
    if isinstance(value, wire.Array):
        return {"shape": value.shape, "float32": memoryview(value.data).cast("f").tolist()}
    return value.fields if isinstance(value, wire.Structured) else str(value)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def _read() -> bytes:
    """Of stdin, on a thread of its own, for which the end of this process does not wait."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[bytes] = loop.create_future()

    def tell(data: bytes) -> None:
        if not found.done():
            found.set_result(data)

    def read() -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(0, 65536)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, data)

    threading.Thread(target=read, daemon=True).start()
    return await found
