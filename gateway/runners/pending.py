"""The base class of a call and a question: work that a worker was given and has not ended.

The task that made it sleeps on one future; `abandon` wakes it with an error. `cancel` asks the worker to stop the code;
`ended` means that the code has stopped. If it does not stop, it becomes `overdue` and its worker is killed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ..spec import Limits

NEVER = float("inf")


class ClientLeft(Exception):
    """The client closed its connection, so no answer is needed."""


class Pending:
    """Times are seconds of the event loop's clock. Subclasses implement `_send_cancel` to have the code stopped."""

    __slots__ = ("_future", "_loop", "cancelled_at", "deadline", "ended", "error", "id", "limits", "overdue")

    is_ahead = False  # it was sent before there was a slot for it, and waits in the worker

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.limits, self._loop = limits, loop
        self.id = 0
        self.error: BaseException | None = None
        self.ended = False  # the model's code has stopped
        self.deadline = NEVER  # when waiting for it ends
        self.cancelled_at = NEVER
        self.overdue = NEVER  # when cancelled code that still runs has exhausted its grace
        self._future: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.cancel()

    def abandon(self, error: BaseException) -> None:
        """End the caller's wait with `error`, and cancel the code in the worker."""
        if self.ended or self.error is not None:
            return
        self.error = error
        self.cancel()
        self.deadline = NEVER
        self._wake()

    def cancel(self) -> None:
        """Ask the code to stop, if it has not; its time limit stays in force."""
        if not self.ended and self.cancelled_at == NEVER:
            self.cancelled_at = now = self._loop.time()
            self.overdue = max(now, self._own_limit(now)) + self.limits.cancel_grace
            self._send_cancel()

    @property
    def may_run_until(self) -> float:
        """When its worker is killed, if it was cancelled and its code still runs."""
        return self.overdue

    def _own_limit(self, now: float) -> float:
        """Return until when its code may run without being late."""
        return self.deadline if self.deadline < NEVER else now

    def _send_cancel(self) -> None:
        raise NotImplementedError

    def on_error(self, error: BaseException) -> None:
        """Its code has failed, or its worker was lost."""
        if self.error is None:
            self.error = error
        self.ended = True
        self._wake()

    def on_end(self) -> None:
        """Its code has stopped, and nothing more will come."""
        raise NotImplementedError

    async def _wait(self) -> None:
        self._future = self._loop.create_future()
        try:
            await self._future
        finally:
            self._future = None

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
