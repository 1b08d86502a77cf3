"""A table on the terminal, below the log, that follows the models while they load."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.live import Live

from .tables import table

if TYPE_CHECKING:
    from typing import TextIO

    from ..hosting.hub import Hub
    from ..hosting.model import HostedModel

TURN = 0.1  # seconds to wait until the terminal accepts output: after Ctrl-S it accepts none


@contextlib.contextmanager
def live_table(hub: Hub) -> Iterator[None]:
    """Show the table until the block ends. What is printed meanwhile appears above it."""
    began = time.monotonic()

    def render() -> Any:
        spent = f"{time.monotonic() - began:.0f} s"
        return table(None, [_progress(model, hub, spent) for model in hub.catalog.models.values()])

    stdout = sys.stdout is not None and sys.stdout.isatty()
    with live(Turns(file=cast("TextIO", Screen())), get_renderable=render, transient=True, redirect_stdout=stdout):
        yield


def live(console: Turns, **options: Any) -> Live:
    """Return a display whose refreshing thread and whose users print one after the other."""
    made = Live(console=console, **options)
    made._lock = console.turn  # both are taken in either order: only one and the same lock cannot wait for itself
    return made


class Turns(Console):
    """A console on which one thread prints at a time.

    A live display puts the codes that go back over its last frame before each print. Rich 15.0 makes these codes under
    a lock and writes them without it, so two threads could go back over the same frame, or none over the first: one's
    line was then appended to the other's table.
    """

    def __init__(self, **options: Any) -> None:
        self.turn = threading.RLock()
        super().__init__(**options)

    def __enter__(self) -> Turns:
        self.turn.acquire()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            self.turn.release()


class Screen(io.TextIOBase):
    """The terminal of the live table. A frame that it does not accept at once is dropped: the next one replaces it."""

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


def _progress(model: HostedModel, hub: Hub, spent: str) -> tuple[str, str, str, str]:
    if model.state != "loading":
        return model.name, model.state, "", ""
    return model.name, model.state, spent, "".join(hub.tails.of(model.name)[-1:])[:80]
