"""Format the model's `logging` records, with the id of the call they belong to.

The lines of a record are marked, because the log is read line by line.
"""

from __future__ import annotations

import logging
import os
from contextvars import ContextVar

from ..wire.frames import BEGINS, GOES_ON

request_id: ContextVar[str] = ContextVar(
    "request_id", default=""
)  # id of the call that runs here, on the event loop or a thread


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        call = request_id.get()
        return as_one(f"[{call}] {text}" if call else text)


def as_one(text: str) -> str:
    """Mark the lines of one record; the gateway removes the marks. A terminal gets none."""
    first, *rest = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
    if rest and os.isatty(2):
        return text
    return "\n".join((BEGINS + first, *(GOES_ON + line for line in rest))) if rest else first


def set_up(debug: bool) -> None:
    """Log records from INFO on, as Truss's server does; from DEBUG on if config.yaml says so."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
