"""The output of `gateway serve` at its start: address, progress of loading, a table of the models, example calls.

The address, the table and the examples go to stdout. The progress goes to stderr: as a live table on a terminal, as log
lines elsewhere. With log_format = "json", only the address and the log are printed.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import threading
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from ..telemetry.printing import try_to_write
from .tables import table, text_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..access.permits import KeyRing
    from ..hosting.catalog import Catalog
    from ..hosting.hub import Hub
    from ..hosting.ledger import Ledger
    from ..hosting.model import HostedModel
    from ..inspection.inventory import Inventory

log = logging.getLogger("gateway.serve")
PATIENCE = 3.0  # seconds of loading after which the models that are ready are shown


class Report:
    """The report of one start."""

    def __init__(self, found: Inventory, url: str) -> None:
        self._found, self._url = found, url

    async def watch(self, hub: Hub, keys: KeyRing, accepting: asyncio.Event) -> None:
        """Report the progress of the start; return when every model that loads at the start is ready or has failed."""
        for_people = self._found.settings.gateway.log_format == "text"
        with _table(hub) if for_people and sys.stderr is not None and sys.stderr.isatty() else nullcontext():
            await accepting.wait()
            who = f"{keys}{'; a plugin decides too' * hub.plugins.has('authorize')}"
            await say(f"Serving on {self._url}" + f"\n{who}" * for_people)
            if not for_people:
                log.info("%s", who, extra={"code": "keys_required" if keys.is_required else "no_keys"})
            if for_people:
                await asyncio.to_thread(_import_rest)
            await self._settled(hub, keys, for_people)
        if for_people:
            await self._show(hub, keys)

    async def _settled(self, hub: Hub, keys: KeyRing, for_people: bool) -> None:
        """Wait for every load. If that takes long, show a model that is ready."""
        models = hub.catalog.models.values()
        loading = {asyncio.ensure_future(model.settled()) for model in models if model.state == "loading"}
        if loading:
            _, loading = await asyncio.wait(loading, timeout=PATIENCE)
        told = not for_people
        while loading:
            if not told and (lines := self._snippets(hub, keys)):
                await say(f"Still loading the rest. Ready now:\n\n{lines}")
                told = True
            _, loading = await asyncio.wait(loading, return_when=asyncio.FIRST_COMPLETED)

    async def _show(self, hub: Hub, keys: KeyRing) -> None:
        rows = [_row(model, hub) for model in hub.catalog.models.values()]
        broken = {problem.model: problem for problem in self._found.problems if problem.level in STATES}
        others = ((name, problem) for name, problem in broken.items() if name and name not in hub.catalog.models)
        rows += [(name, STATES[problem.level], "", "", problem.what) for name, problem in others]
        shown = text_of(table(("model", "state", "device", "slots", "routes"), rows, several=True))
        await say(f"{shown}{self._snippets(hub, keys) or _why_not(hub.catalog)}")

    def _snippets(self, hub: Hub, keys: KeyRing) -> str | None:
        from .snippets import snippets  # much to import, for the end of the report

        return snippets(hub, keys, self._url)


def _import_rest() -> None:
    """Import what the end of the report needs while models load: the event loop answers the first calls then."""
    for name in ("rich.console", "rich.table", f"{__package__}.snippets"):
        importlib.import_module(name)


async def say(text: str) -> None:
    """Print a text without blocking the loop, even if the reader is slow or has stopped.

    A daemon thread writes it, so the process can exit meanwhile. Text and newline are one write: otherwise a log line
    could come between them on a shared pipe.
    """
    loop, written = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try_to_write(f"{text}\n")
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(written.set)

    threading.Thread(target=run, name="report", daemon=True).start()
    await written.wait()


STATES = {"error": "broken", "warning": "not served"}


def _why_not(catalog: Catalog) -> str:
    if not catalog.models:
        return "There is no model yet."
    if all(model.state == "unloaded" for model in catalog.models.values()):
        return "Every model loads at its first request."
    if any(model.state == "ready" for model in catalog.models.values()):
        return "The table shows the routes of each model."
    return "No model is ready. See the log above for the reasons."


def _row(model: HostedModel, hub: Hub) -> tuple[str, str, str, str, str]:
    slots = model.spec.limits.slots * model.spec.replicas
    if model.state == "failed":
        routes = model.reason
    elif model.state == "unloaded":
        routes = "\n".join((*hub.catalog.routes(model), "loads at its first request"))
    else:
        routes = "\n".join(hub.catalog.routes(model)) or "none"
    return model.name, model.state, devices_of(model.name, hub.ledger), str(slots), routes


def devices_of(name: str, ledger: Ledger) -> str:
    """Return the devices of a model by the names that users know: "cpu", "GPU 0,1", or one such list per replica."""
    names = {device.id: device.id if device.is_slice else str(device.index) for device in ledger.devices}
    shown = []
    for ids in dict.fromkeys(ledger.devices_of(name)):
        known = [names[part] for part in ids.split(",") if part in names]
        shown.append(f"GPU {','.join(known)}" if known else ids)
    return "; ".join(shown)


def _table(hub: Hub) -> AbstractContextManager[None]:
    from .live_table import live_table  # Rich's console takes long to import

    return live_table(hub)
