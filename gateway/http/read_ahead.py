"""How far a connection is read ahead: requests that are parsed while an earlier one is answered.

They are read so that a disconnect is noticed. Nobody has checked them yet, so they are few, and small together: a
client without a key may have as many connections as there are.
"""

from __future__ import annotations

from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl

MAX_PIPELINED = 16  # requests; beyond that reading pauses, and a disconnect is not noticed
AHEAD = 64 * 1024  # bytes of all of them: a head that is larger than some hundred is rare
SLICE = 4096  # bytes parsed at a time if they may hold many requests: a parsed request takes 100 times its size


class Flow(FlowControl):
    """Flow control of a connection. `is_held` keeps reading paused until the data read so far is parsed."""

    is_held = False

    def resume_reading(self) -> None:
        if self.read_paused and not self.is_held:
            super().resume_reading()


def is_far_ahead(pipeline: Sized, size: int) -> bool:
    """Whether no more is parsed until one of the waiting requests is answered. `size` is the bytes of all of them."""
    return len(pipeline) >= MAX_PIPELINED or size > AHEAD
