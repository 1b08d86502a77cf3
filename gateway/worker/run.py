"""One call in this worker: what was asked, how far it has come, whether anybody still wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from .. import wire
from .adapter import Method
from .parity import Rules, Stage
from .request import Cancellation
from .window import Window

NEVER = float("inf")


class Run:
    """Touched on the loop only, but for its window and its cancellation.

    It ends once, with its last frame: then no code of the model runs for it any more, or it never began.
    """

    __slots__ = (
        "batch",
        "batch_since",
        "body",
        "cancellation",
        "ended",
        "go",
        "has_begun",
        "head",
        "holds_slot",
        "id",
        "leave_by",
        "method",
        "rules",
        "stage",
        "step",
        "task",
        "timer",
        "until",
        "window",
    )

    def __init__(self, call: int, head: wire.Req, body: bytes, method: Method, rules: Rules) -> None:
        self.id, self.head, self.body, self.method, self.rules = call, head, body, method, rules
        self.cancellation = Cancellation()
        self.window = Window()
        self.task: asyncio.Task[None] | None = None
        self.has_begun = False  # the task has had its first turn; before that, cancelling it would run none of it
        self.step: Method | None = None  # the one whose code has begun last
        self.leave_by = 0.0  # until then, by `monotonic`, code that was told of its client's leaving may go on
        self.go: Callable[[], None] | None = None  # called with the slot, while it waits for one
        self.timer: asyncio.TimerHandle | None = None  # ends that wait, or code that may go on
        self.until = NEVER  # by the loop's clock; after that it must not begin
        self.holds_slot = self.ended = False
        self.stage: Stage = "call"  # set by whoever iterates its result, on the thread or in the task that does
        self.batch: list[bytes] = []  # items of this turn of the loop
        self.batch_since = 0.0

    def told(self, model: str) -> str:
        """Whose code ran last, by name, and the route that it ran for, as a path of that model."""
        name = (self.step or self.method).name
        return f"{self.head.route.replace('{model}', model)}: {name}" if self.head.route else name

    @property
    def cancelled(self) -> bool:
        return self.window.closed

    def begin(self, step: Method) -> None:
        """Its code runs from now on; what an earlier step has asked does not count for it."""
        self.cancellation.was_asked = False
        self.step = step

    @property
    def looks(self) -> bool:
        """The code that runs asks whether its client has gone, so it is told rather than stopped."""
        return self.step is not None and self.go is None and (self.step.looks or self.cancellation.was_asked)

    @property
    def may_go_on(self) -> bool:
        """Cancelled, but with time left to stop by itself."""
        return self.leave_by > monotonic()
