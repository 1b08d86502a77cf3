"""Run one model in the foreground of a terminal, with stdin and a debugger.

The model is loaded and called as in the gateway: the same worker, environment, devices and sandbox. There is no HTTP,
no queue, no time limit and no restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import termios
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, Crashed, GatewayError
from ..hosting.hub import Hub
from ..runners.call import Call
from ..runners.process import ProcessReplica
from ..wire import frames
from ..wire.values import Array, Structured, encode
from .tables import answers, tell

if TYPE_CHECKING:
    from ..inspection.inventory import Inventory
    from ..runners.replica import Terminal

GRACE = 2.0  # seconds for `unload` at the end
AFTER_CTRL_C = 0.5  # the same after Ctrl-C, when the user waits for the prompt
INTERRUPTED = 130  # exit status after Ctrl-C, as in a shell


def run(found: Inventory, method: str | None, data: bytes | None, terminal: Terminal) -> int:
    """Load the only model of `found` and call it: with `data`, or with each line of stdin. Return the exit status.

    Raises:
        ConfigError: no device has room for the model, its runner has no process, or the method does not exist.
        LoadError: the load failed.
    """
    with _as_it_was():
        try:
            return asyncio.run(_Foreground(found, terminal).run(method, data))
        except KeyboardInterrupt:
            return INTERRUPTED


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Restore the terminal at the end: a debugger that is killed at its prompt leaves echo turned off."""
    before = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        yield
    finally:
        if before is not None:
            termios.tcsetattr(0, termios.TCSANOW, before)


class _Foreground:
    def __init__(self, found: Inventory, terminal: Terminal) -> None:
        self._found, self._spec, self._terminal = found, found.specs[0], terminal
        self._rest = b""  # read from stdin, not used yet

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
            raise ConfigError(f"model '{spec.name}' uses the runner '{runner}', which gives it no terminal")
        if refused := hub.ledger.place([spec]):
            raise ConfigError(f"model '{spec.name}' cannot be placed: {refused[spec.name][1]}")
        if settings.isolates(spec):
            spec = await hub.isolate(spec)
        launch = replace(hub.launch(spec, 0), terminal=self._terminal, debug=True)
        if not spec.own_code and self._terminal == "plain":
            # Only data: no code of it stops in a terminal, and what libraries print of it could be control characters.
            launch = replace(launch, terminal="", on_log=say)
        return ProcessReplica(launch)

    async def _serve(self, replica: ProcessReplica, method: str | None, data: bytes | None) -> int:
        methods = [one.name for one in replica.capabilities.methods]
        chosen = method or ("predict" if "predict" in methods or not methods else methods[0])
        if chosen not in methods:
            have = ", ".join(methods) or "none"
            raise ConfigError(f"model '{self._spec.name}' has no method '{chosen}' (have: {have})")
        if data is not None:
            return await self._call(replica, chosen, data)
        if os.isatty(0):
            say(f"{self._spec.name} is loaded. Enter the JSON for {chosen}, one call a line; Ctrl-D ends it")
        status = 0
        while not replica.lost.done() and (line := await self._line()) is not None:
            if line.strip():
                status = max(status, await self._call(replica, chosen, line))
        return status

    async def _line(self) -> bytes | None:
        """Return the next line of stdin. What follows it is left for the model to read."""
        while b"\n" not in self._rest:
            if not (chunk := await _read()):
                line, self._rest = self._rest, b""
                return line or None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    async def _call(self, replica: ProcessReplica, method: str, data: bytes) -> int:
        """Call the method and print the answer as it arrives. Return 1 on failure."""
        try:
            value = json.loads(data)
        except ValueError as error:
            say(f"Error: not valid JSON: {error}")
            return 1
        wants_request = any(one.name == method and one.wants_request for one in replica.capabilities.methods)
        head = [(b"content-type", b"application/json")]
        scope = frames.HTTPScope("POST", f"/v1/models/{self._spec.name}:{method}", b"", head, None, None, "http")
        mode = frames.BYTES if method == "predict" else frames.DATA
        given = scope if wants_request else None
        request = frames.Req(method, mode, False, "application/json", "run", False, None, given)
        body = data if mode == frames.BYTES else encode(value)
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
    """stdout: text and bytes unchanged, any other value as a line of JSON."""

    def __init__(self) -> None:
        self._last, self._write = b"", answers()

    def write(self, value: Any) -> None:
        if isinstance(value, str):
            value = value.encode("utf-8", "replace")
        elif not isinstance(value, bytes):
            self.end()
            value = json.dumps(value, ensure_ascii=False, default=_plain).encode() + b"\n"
        if value:
            self._last = value
            self._write(value)

    def end(self) -> None:
        """End the current line if it is text that does not end with a newline."""
        if self._last and not self._last.endswith(b"\n") and _is_text(self._last):
            self.write(b"\n")


def _is_text(data: bytes) -> bool:
    return b"\0" not in data and data.decode("utf-8", "replace").isprintable()


def _plain(value: Any) -> Any:
    if isinstance(value, Array):
        return {"shape": value.shape, "float32": memoryview(value.data).cast("f").tolist()}
    return value.fields if isinstance(value, Structured) else str(value)


def say(text: str) -> None:
    tell(text, err=True)


async def _read() -> bytes:
    """Read from stdin, on a daemon thread so that the process can exit while a read blocks."""
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
