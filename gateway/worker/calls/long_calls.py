"""Name the present line of a call or a load that has run long on a thread.

It may compute, wait, or never end; only the author knows. So this is no error: one log line for each call says how long
it has run and where it is. A duration that the method has needed before is not long. The thread of `blocked_loop.py`
does the checks; a call only records its start time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .blocked_loop import first, place_of, stack_of
from .run import Run
from .threads import Begun

LONG = 10.0  # seconds of a call, or since the last item of a stream
LONG_LOAD = 30.0  # seconds of a load, which may read large files
USUAL = 2.0  # times the longest known duration of the method
CALL = "serves the new code beside it, and a time limit ends this call"
LOAD = "begins anew"


@dataclass(slots=True)
class _Seen:
    """What a thread was doing at the last check.

    Unchanged while `begun` is the same and no item was sent. Holds no references to the call.
    """

    begun: float
    items: int
    since: float
    last: float  # time of the last check
    method: str = ""  # the method that was reported


class Lasting:
    """`begun` has the jobs of the pools' threads, `loading` that of the thread that loads the model, by thread id."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._model = ""
        self._places: Sequence[str] = ()
        self.begun: list[Mapping[int, Begun]] = []
        self.loading: dict[int, Begun] = {}
        self._seen: dict[int, _Seen] = {}
        self._usual: dict[str, float] = {}  # longest seconds of a method that was reported

    def of(self, model: str, places: Sequence[str]) -> None:
        """Set the model's name, and the directories of its own code."""
        self._model, self._places = model, places

    def look(self) -> None:
        """Report what has run long by now."""
        now = time.monotonic()
        running = dict(self._running())
        for thread in self._seen.keys() - running.keys():
            self._over(self._seen.pop(thread))
        for thread, (begun, long) in running.items():
            seen = self._seen.get(thread)
            items, is_same = _items(begun), seen is not None and seen.begun == begun[0]
            if seen is None or not is_same or seen.items != items:
                if seen is not None:
                    self._over(seen)
                seen = self._seen[thread] = _Seen(begun[0], items, now if is_same else begun[0], now)
            seen.last = now
            if not seen.method and now - seen.since > long:
                self._tell(thread, seen, long)

    def _running(self) -> Iterator[tuple[int, tuple[Begun, float]]]:
        for threads, long in (*((each, LONG) for each in self.begun), (self.loading, LONG_LOAD)):
            yield from ((thread, (begun, long)) for thread, begun in list(threads.items()))

    def _over(self, seen: _Seen) -> None:
        if seen.method:
            self._usual[seen.method] = max(seen.last - seen.since, self._usual.get(seen.method, 0.0))

    def _tell(self, thread: int, seen: _Seen, long: float) -> None:
        stack = stack_of(thread)
        begun = first(stack, self._places)
        if begun is None:  # it waits for its client, or a debugger is active
            return
        method, took = begun.f_code.co_name, seen.last - seen.since
        if took <= USUAL * self._usual.get(method, 0.0):
            return
        seen.method = method
        does = LOAD if long == LONG_LOAD else CALL
        where = place_of(stack, begun, self._places)
        self._say(
            f"{method} has run for {took:.0f} s, now at {where}; if it should have ended by now, mend it: "
            f"`gateway reload {self._model}`, or serve --reload by itself, {does}"
        )


def _items(begun: Begun) -> int:
    """Return how many items its stream has sent."""
    run = begun[1][0] if begun[1] else None
    return run.window.sent if isinstance(run, Run) else 0
