"""What the model says with `logging`: a record of its log each, with the id of the call that it belongs to.

A record of several lines says so: a log is read line by line, and nothing else tells where one ends.
"""

from __future__ import annotations

import logging
import os
from contextvars import ContextVar

from ..wire import BEGINS, GOES_ON

request_id: ContextVar[str] = ContextVar(
    "request_id", default=""
)  # of the call that runs here, on the loop or a thread


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        call = request_id.get()
        return as_one(f"[{call}] {text}" if call else text)


def as_one(text: str) -> str:
    """Mark the lines as those of one record; the gateway takes the marks out again. A terminal gets none."""
    first, *rest = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
    if rest and os.isatty(2):
        return text
    return "\n".join((BEGINS + first, *(GOES_ON + line for line in rest))) if rest else first


def set_up(debug: bool) -> None:
    """Records from INFO on reach the log, as under Truss's server; DEBUG too when config.yaml says so."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
