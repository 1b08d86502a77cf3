"""One call in this worker: the request, its progress, and its cancellation."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from time import monotonic

from ...wire import frames
from ..bodies.request import Cancellation
from ..bodies.rules import Rules, Stage
from ..loading.descriptor import Method
from .credit_window import Window

NEVER = float("inf")


class Run:
    """Used on the event loop only, except its window, its cancellation, and the batch of a stream of a thread.

    It ends once, with its last frame. By then no code of the model runs for it, or none ever started.
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
        "is_due",
        "is_job",
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

    def __init__(self, call: int, head: frames.Req, body: bytes | memoryview, method: Method, rules: Rules) -> None:
        self.id, self.head, self.body, self.method, self.rules = call, head, body, method, rules
        self.cancellation = Cancellation()
        self.window = Window()
        self.task: asyncio.Task[None] | None = None
        self.has_begun = False  # the task has had its first turn; cancelled before that, none of its code would run
        self.step: Method | None = None  # the step that was started last
        self.leave_by = 0.0  # until then (by `monotonic`) code may stop by itself after its client has left
        self.go: Callable[[], None] | None = None  # called when it gets its slot; set while it waits
        self.timer: asyncio.TimerHandle | None = None  # ends that wait, or code that was given time
        self.until = NEVER  # by the loop's clock; it must not start after that
        self.holds_slot = self.ended = False
        self.is_job = False  # it runs on the thread of a slot, from its input to its last item
        self.stage: Stage = "call"  # set by the thread or task that iterates the result
        self.batch: deque[bytes] = deque()  # items of this turn of the loop
        self.is_due = False  # they are about to be sent
        self.batch_since = 0.0

    def told(self, model: str) -> str:
        """Return the name of the method that ran last, and its route, as a path of that model."""
        name = (self.step or self.method).name
        return f"{self.head.route.replace('{model}', model)}: {name}" if self.head.route else name

    @property
    def cancelled(self) -> bool:
        return self.window.closed

    def begin(self, step: Method) -> None:
        """Start a step. Whether an earlier step checked for a disconnect does not count for it."""
        self.cancellation.was_asked = False
        self.step = step

    @property
    def looks(self) -> bool:
        """Whether the running code checks for a disconnect, so that it is given time to stop by itself."""
        return self.step is not None and self.go is None and (self.step.looks or self.cancellation.was_asked)

    @property
    def may_go_on(self) -> bool:
        """Whether it has time left to stop by itself after a cancel."""
        return self.leave_by > monotonic()


call_id: ContextVar[int] = ContextVar("call_id", default=0)  # of the run whose task this is
