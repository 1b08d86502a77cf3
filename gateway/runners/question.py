"""A question of the gateway itself to a worker; it bypasses the queue and takes no slot.

    made ──asked──> running ──answer / error / end / lost──> ended

Unlike a call, it has no route, no client and no body, and the answer is one small value with a known form. It travels
in an `ask` frame, so a method of the model may have the same name as a question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ..errors import InvalidOutput
from ..spec import Capabilities
from ..wire.frames import Ask, What
from ..wire.plain import to_capabilities, to_health
from ..wire.values import decode_weighed
from .pending import NEVER, Pending

if TYPE_CHECKING:
    from ..spec import Limits

T = TypeVar("T")


class Asked(Protocol):
    """The replica that was asked."""

    def cancel(self, pending: Pending) -> None: ...


class Question(Pending, Generic[T]):
    """`read` converts the answer, and raises `WireError` for a value that no honest worker sends."""

    __slots__ = ("_read", "_replica", "_reply", "ask")

    def __init__(self, what: What, read: Callable[[object], T], limits: Limits) -> None:
        super().__init__(limits, asyncio.get_running_loop())
        self.ask = Ask(what)
        self._read = read
        self._replica: Asked | None = None
        self._reply: T

    async def answer(self) -> T:
        """Wait for the worker's answer.

        Raises:
            GatewayError: the model's code failed, the time limit is over, or the worker was lost.
        """
        while not self.ended and self.error is None:
            await self._wait()
        if self.error is not None:
            raise self.error
        return self._reply

    def asked(self, replica: Asked, question_id: int) -> None:
        """It has been sent; its time limit starts."""
        self._replica, self.id = replica, question_id
        self.deadline = self._loop.time() + self.limits.request_timeout

    def _send_cancel(self) -> None:
        if self._replica is not None:
            self._replica.cancel(self)

    def on_answer(self, payload: bytes | memoryview) -> None:
        """Take the payload of the `answer` frame, which is the last frame of a question."""
        self._reply = self._read(decode_weighed(payload))
        self.ended = True
        self._wake()

    def on_end(self) -> None:
        """Its code was cancelled and has stopped."""
        if self.cancelled_at == NEVER:
            self.error = InvalidOutput(f"the worker ended {self.ask.what} without an answer")
        self.ended = True
        self._wake()


def about_health(limits: Limits) -> Question[bool | None]:
    """Ask the model's `is_healthy`; None means no opinion."""
    return Question("is_healthy", to_health, limits)


def about_new_code(limits: Limits) -> Question[Capabilities]:
    """Have the class swapped in place, as Truss does; the answer has the capabilities of the new class."""
    return Question("swap_class", to_capabilities, limits)
