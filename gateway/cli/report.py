"""What `gateway serve` tells people: the address, how loading goes, one table of models, lines to paste.

The address, the table and the lines go to stdout; how loading goes to stderr, as a live table on a terminal and as log
lines elsewhere. A machine that reads JSON lines gets the address and the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from .snippets import snippets
from .tables import show, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..hosted import HostedModel
    from ..hub import Hub
    from ..inventory import Inventory

log = logging.getLogger("gateway.serve")
UNLIMITED = 10_000  # slots; as many as nobody counts
PATIENCE = 3.0  # seconds of loading after which people are told what answers already


class Report:
    """One report of one start."""

    def __init__(self, found: Inventory, url: str) -> None:
        self._found, self._url = found, url

    async def watch(self, hub: Hub, accepting: asyncio.Event) -> None:
        """Tell how the start goes; returns when every eager model is ready or has failed."""
        for_people = self._found.settings.gateway.log_format == "text"
        with _live(hub) if for_people and sys.stderr.isatty() else contextlib.nullcontext():
            await accepting.wait()
            # Not click.echo, which would write past the live table, into its rows.
            # One write, line end included, or a line of the log could come in between on a shared pipe.
            print(f"Serving on {self._url}\n", end="", flush=True)
            keys = f"{hub.keys}{'; a plugin decides too' * hub.plugins.has_authorize}"
            if for_people:
                print(f"{keys}\n", end="", flush=True)
            else:
                log.info("%s", keys, extra={"code": "keys_required" if hub.keys.is_required else "no_keys"})
            await self._settled(hub, for_people)
        if for_people:
            self._show(hub)

    async def _settled(self, hub: Hub, for_people: bool) -> None:
        """Wait for every load. When that takes long, say what answers already."""
        loading = {asyncio.ensure_future(model.settled()) for model in hub.models.values() if model.state == "loading"}
        if loading:
            _, loading = await asyncio.wait(loading, timeout=PATIENCE)
        told = not for_people
        while loading:
            if not told and (lines := snippets(hub, self._url)):
                print(f"Others are loading still; this answers already:\n\n{lines}", flush=True)
                told = True
            _, loading = await asyncio.wait(loading, return_when=asyncio.FIRST_COMPLETED)

    def _show(self, hub: Hub) -> None:
        rows = [_row(model, hub) for model in hub.models.values()]
        broken = {problem.model: problem for problem in self._found.problems if problem.model is not None}
        others = ((name, problem) for name, problem in broken.items() if name not in hub.models)
        rows += [(name, STATES[problem.level], "", "", problem.what) for name, problem in others]
        show(table(("model", "state", "device", "slots", "routes"), rows))
        print(snippets(hub, self._url) or _why_not(hub), flush=True)


STATES = {"error": "broken", "warning": "not served"}


def _why_not(hub: Hub) -> str:
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
        routes = "loads at its first request"
    else:
        routes = "\n".join(hub.routes(model)) or "none"
    return model.name, model.state, devices_of(model, hub), "unlimited" if slots >= UNLIMITED else str(slots), routes


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
        return table(None, [_progress(model, spent) for model in hub.models.values()])

    console = Console(stderr=True)
    with Live(get_renderable=render, console=console, transient=True, redirect_stdout=sys.stdout.isatty()):
        yield


def _progress(model: HostedModel, spent: str) -> tuple[str, str, str, str]:
    if model.state != "loading":
        return model.name, model.state, "", ""
    return model.name, model.state, spent, model.tail[-1][:80] if model.tail else ""
