"""Name the line of a model that blocks the worker's event loop: an `async` method that waits without `await`.

A thread wakes once a second and inspects the loop's stack when a heartbeat is late, so calls pay nothing. C code that
holds the GIL blocks this thread too. The blocking code is not stopped.
"""

from __future__ import annotations

import linecache
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

from ..loading.tracebacks import is_leading, is_own

LATE = 1.0  # seconds that a heartbeat may be late, because the machine may be busy
LOOK = 0.1  # seconds between two checks
AGAIN = 60.0  # seconds before the same line is reported again
ADVICE = "await it, hand it to asyncio.to_thread, or write the method without async, which gives it a thread"


class Watch:
    """Watch the event loop of the thread that creates it. The loop must call `beat` every `interval` seconds.

    `look_on` is called as often while the loop is not blocked.
    """

    def __init__(self, interval: float, say: Callable[[str], None], look_on: Callable[[], None] = lambda: None) -> None:
        self._interval, self._say, self._look_on = interval, say, look_on
        self._thread = threading.get_ident()
        self._places: Sequence[str] = ()
        self._told: dict[str, float] = {}
        self._beaten = time.monotonic()

    def beat(self) -> None:
        self._beaten = time.monotonic()

    def start(self, places: Sequence[str]) -> None:
        """Start the thread. `places` are the directories of the model's own code."""
        self._places = places
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            early = self._beaten + self._interval + LATE - time.monotonic()
            time.sleep(max(LOOK, early))
            if early <= 0:
                self._look()
            else:
                self._look_on()

    def _look(self) -> None:
        """Check twice, because with many short steps the second check finds another frame."""
        beaten = self._beaten
        begun = self._begun()
        if begun is None:
            return
        time.sleep(LOOK)
        if self._begun() is not begun or self._beaten != beaten:
            return
        del begun  # otherwise its variables would stay alive while this waits
        line = where(stack_of(self._thread), self._places)
        now = time.monotonic()
        if now - self._told.get(line, -AGAIN) < AGAIN:
            return
        self._told = {each: since for each, since in self._told.items() if now - since < AGAIN} | {line: now}
        self._say(f"{line} has blocked the loop of this worker for {now - beaten:.1f} s: {ADVICE}")
        while self._beaten == beaten:
            time.sleep(LOOK)
        self._say(f"the loop runs again, {time.monotonic() - beaten:.1f} s after its last turn")

    def _begun(self) -> FrameType | None:
        return first(stack_of(self._thread), self._places)


def first(stack: Sequence[FrameType], places: Sequence[str]) -> FrameType | None:
    """Return the frame of the outermost method of the model, or of a library, on the stack.

    None if there is none, or if a debugger is active.
    """
    if any(frame.f_trace is not None for frame in stack):
        return None
    own = (frame for frame in stack if is_own(frame.f_code.co_filename, places))
    other = (frame for frame in stack if not is_leading(frame.f_code.co_filename))
    return next(own, None) or next(other, None)


def where(stack: Sequence[FrameType], places: Sequence[str]) -> str:
    """Return the running method of the model and its present line."""
    begun = first(stack, places)
    if begun is None:
        return "something"
    method = f"{begun.f_code.co_name}: " if begun is not _deepest(stack, begun, places) else ""
    return f"{method}{place_of(stack, begun, places)}"


def place_of(stack: Sequence[FrameType], begun: FrameType, places: Sequence[str]) -> str:
    """Return the present line of the model, whose method is `begun`, and the line of a library it has called."""
    at, last = _deepest(stack, begun, places), stack[-1]
    return _line(at, places) + (f" (in {_line(last, places)})" if last is not at else "")


def _deepest(stack: Sequence[FrameType], begun: FrameType, places: Sequence[str]) -> FrameType:
    own = (frame for frame in reversed(stack) if is_own(frame.f_code.co_filename, places))
    return next(own, begun)


def _line(frame: FrameType, places: Sequence[str]) -> str:
    # f_lineno may be None between two lines, whatever its type says
    file, number = frame.f_code.co_filename, frame.f_lineno or frame.f_code.co_firstlineno
    text = linecache.getline(file, number).strip()
    place = next((each for each in places if is_own(file, [each])), "")
    shown = os.path.relpath(file, place) if place else file
    return f"{shown}:{number}, in {frame.f_code.co_name}" + (f", `{text[:120]}`" if text else "")


def stack_of(thread: int) -> list[FrameType]:
    """Return the frames of a thread, outermost first."""
    frame = sys._current_frames().get(thread)
    stack: list[FrameType] = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack[::-1]
