"""What `gateway serve` tells people: the address, how loading goes, one table of models, lines to paste.

The address, the table and the lines go to stdout; how loading goes to stderr, as a live table on a terminal and as log
lines elsewhere. A machine that reads JSON lines gets the address and the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO, cast

from ..printing import try_to_write
from .snippets import snippets
from .tables import table, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..hosted import HostedModel
    from ..hub import Hub
    from ..inventory import Inventory

log = logging.getLogger("gateway.serve")
TURN = 0.1  # seconds that a terminal has to take what is drawn: one that is held up by Ctrl-S takes nothing
PATIENCE = 3.0  # seconds of loading after which people are told what answers already


class Report:
    """One report of one start."""

    def __init__(self, found: Inventory, url: str) -> None:
        self._found, self._url = found, url

    async def watch(self, hub: Hub, accepting: asyncio.Event) -> None:
        """Tell how the start goes; returns when every eager model is ready or has failed."""
        for_people = self._found.settings.gateway.log_format == "text"
        with _live(hub) if for_people and is_terminal(sys.stderr) else contextlib.nullcontext():
            await accepting.wait()
            keys = f"{hub.keys}{'; a plugin decides too' * hub.plugins.has_authorize}"
            await say(f"Serving on {self._url}" + f"\n{keys}" * for_people)
            if not for_people:
                log.info("%s", keys, extra={"code": "keys_required" if hub.keys.is_required else "no_keys"})
            await self._settled(hub, for_people)
        if for_people:
            await self._show(hub)

    async def _settled(self, hub: Hub, for_people: bool) -> None:
        """Wait for every load. When that takes long, say what answers already."""
        loading = {asyncio.ensure_future(model.settled()) for model in hub.models.values() if model.state == "loading"}
        if loading:
            _, loading = await asyncio.wait(loading, timeout=PATIENCE)
        told = not for_people
        while loading:
            if not told and (lines := snippets(hub, self._url)):
                await say(f"Others are loading still; this answers already:\n\n{lines}")
                told = True
            _, loading = await asyncio.wait(loading, return_when=asyncio.FIRST_COMPLETED)

    async def _show(self, hub: Hub) -> None:
        rows = [_row(model, hub) for model in hub.models.values()]
        broken = {problem.model: problem for problem in self._found.problems if problem.level in STATES}
        others = ((name, problem) for name, problem in broken.items() if name and name not in hub.models)
        rows += [(name, STATES[problem.level], "", "", problem.what) for name, problem in others]
        shown = text_of(table(("model", "state", "device", "slots", "routes"), rows, several=True))
        await say(f"{shown}{snippets(hub, self._url) or _why_not(hub)}")


async def say(text: str) -> None:
    """Print it, though whoever reads may do so slowly or not at all.

    It is written beside the loop, on a thread that the end of the process does not wait for; with one write, line end
    included, or a line of the log could come in between on a shared pipe.
    """
    loop, written = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try_to_write(f"{text}\n")
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(written.set)

    threading.Thread(target=run, name="report", daemon=True).start()
    await written.wait()


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


class Screen(io.TextIOBase):
    """The terminal of the live table. A frame that it does not take now is left out: the next one shows more."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            if select.select([], [self], [], TURN)[1]:
                os.write(self.fileno(), text.encode("utf-8", "backslashreplace"))
        return len(text)


STATES = {"error": "broken", "warning": "not served"}


def _why_not(hub: Hub) -> str:
    if not hub.models:
        return "There is no model yet."
    if all(model.state == "unloaded" for model in hub.models.values()):
        return "Every model loads at its first request."
    if any(model.state == "ready" for model in hub.models.values()):
        return "The routes of each model are above."
    return "No model is ready: the log above says why."


def _row(model: HostedModel, hub: Hub) -> tuple[str, str, str, str, str]:
    slots = model.spec.limits.slots * model.spec.replicas
    if model.state == "failed":
        routes = model.reason
    elif model.state == "unloaded":
        routes = "\n".join((*hub.routes(model), "loads at its first request"))
    else:
        routes = "\n".join(hub.routes(model)) or "none"
    return model.name, model.state, devices_of(model, hub), str(slots), routes


def devices_of(model: HostedModel, hub: Hub) -> str:
    """The devices of a model by the names that people use: "cpu", "GPU 0,1", or one such list a replica."""
    names = {device.id: device.id if device.is_slice else str(device.index) for device in hub.devices}
    shown = []
    for ids in dict.fromkeys(model.devices):
        known = [names[part] for part in ids.split(",") if part in names]
        shown.append(f"GPU {','.join(known)}" if known else ids)
    return "; ".join(shown)


@contextlib.contextmanager
def _live(hub: Hub) -> Iterator[None]:
    """A table on the terminal, above the log, that is gone when loading has ended."""
    from rich.console import Console
    from rich.live import Live

    began = time.monotonic()

    def render() -> Any:
        spent = f"{time.monotonic() - began:.0f} s"
        return table(None, [_progress(model, hub, spent) for model in hub.models.values()])

    console = Console(file=cast("TextIO", Screen()))
    with Live(get_renderable=render, console=console, transient=True, redirect_stdout=is_terminal(sys.stdout)):
        yield


def _progress(model: HostedModel, hub: Hub, spent: str) -> tuple[str, str, str, str]:
    if model.state != "loading":
        return model.name, model.state, "", ""
    return model.name, model.state, spent, "".join(hub.tails.of(model.name)[-1:])[:80]
