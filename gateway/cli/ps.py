"""gateway ps"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options

NARROW = ("model", "state", "pid", "memory", "up", "called", "calls", "restarts")
FULL = ("model", "state", "pid", "devices", "memory", "up", "last call", "running", "queued", "restarts", "reason")
NEVER = "-"
LEAST = 12  # minimum width of a name that is cut


@click.command("ps")
@click.option("--wide", is_flag=True, help="Cut nothing; show devices and reasons in the table.")
@options.url
@options.config
@options.as_json
def command(wide: bool, url: str | None, config: Path | None, as_json: bool) -> None:
    """Show the models of a running gateway and their resource usage.

    On a terminal the table fits the width: long names are cut in the middle, and reasons are printed below the table.
    With --wide, or when the output is not a terminal, nothing is cut.

    Uses the admin socket, so the gateway must be yours and on this machine.
    """
    import time

    from .operator import Operator
    from .tables import is_terminal, room, show, show_json, table, tell, width_of

    models = Operator.of(options.settings_of(config), url).ask("GET", "/admin/models")["models"]
    if as_json:
        show_json(models)
        return
    now = time.time()
    if wide or not is_terminal():
        show(table(FULL, [_full(model, now) for model in models]), wide=True)
        return
    width, shown = room(), len(NARROW) - (not any(model["restarts"] for model in models))
    heads, rows = NARROW[:shown], [_narrow(model, now)[:shown] for model in models]
    longest = max((len(name) for name, *_ in rows), default=0)
    names = max(LEAST, longest + width - width_of(table(heads, rows, fold=False)))
    show(table(heads, [(_cut(name, names), *rest) for name, *rest in rows], fold=False))
    for model in models:
        if model["reason"]:
            tell(_one_line(f"{model['id']}: {model['reason']}", width))


def _full(model: dict[str, Any], now: float) -> tuple[str, ...]:
    pids = ", ".join(str(replica["pid"]) for replica in model["replicas"] if replica["pid"])
    restarts, running = str(model["restarts"]), f"{model['running']} of {model['slots']}"
    calls = running, str(model["queued"]), restarts, model["reason"]
    return model["id"], _state(model), pids, " ".join(model["devices"]), *_times(model, now), *calls


def _narrow(model: dict[str, Any], now: float) -> tuple[str, ...]:
    first, *others = [str(replica["pid"]) for replica in model["replicas"] if replica["pid"]] or [""]
    pid = f"{first} +{len(others)}" if others else first
    calls = f"{model['running']}/{model['slots']}" + (f" +{model['queued']}" if model["queued"] else "")
    return model["id"], _state(model), pid, *_times(model, now), calls, str(model["restarts"])


def _state(model: dict[str, Any]) -> str:
    return "unhealthy" if model["healthy"] is False else model["state"]


def _times(model: dict[str, Any], now: float) -> tuple[str, str, str]:
    """Return the memory, the uptime of the oldest worker, and the time since the last call."""
    ups = [replica["uptime_seconds"] for replica in model["replicas"] if replica["uptime_seconds"] is not None]
    last, memory = model["last_call_at"], model["memory_bytes"]
    return (
        size(memory) if memory else NEVER,
        span(max(ups)) if ups else NEVER,
        f"{span(max(0.0, now - last))} ago" if last is not None else NEVER,
    )


def size(count: float) -> str:
    """Format a number of bytes in three digits."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1000 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{count:.1f} {units[0]}" if count < 9.95 and units[0] != "B" else f"{count:.0f} {units[0]}"


def span(seconds: float) -> str:
    """Format a duration in its largest unit, rounded down."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length // 1:.0f}{unit}"
    return f"{seconds // 1:.0f}s"


def _cut(text: str, width: int) -> str:
    """Cut the middle of a text: names usually differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def _one_line(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"
