"""What the model says with `logging`: a line of its log each, with the id of the call that it belongs to."""

from __future__ import annotations

import logging
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar(
    "request_id", default=""
)  # of the call that runs here, on the loop or a thread


class Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        call = request_id.get()
        return f"[{call}] {text}" if call else text


def set_up(debug: bool) -> None:
    """Records from INFO on reach the log, as under Truss's server; DEBUG too when config.yaml says so."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
