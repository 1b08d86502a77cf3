"""Name the line at which a call or a load is that has run for long on a thread: it computes, waits, or never ends.

Which of these, only its author knows, so it is no fault: a line of the log says how long and where, once a call. What a
method has been seen to take before is not long. The thread of `blocked.py` looks now and then; what begins on a thread
notes the time, and pays for nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .blocked import first, place_of, stack_of
from .run import Run
from .threads import Begun

LONG = 10.0  # seconds of a call, or since the last item of a stream
LONG_LOAD = 30.0  # seconds of a load, which may read large files
USUAL = 2.0  # times as long as the method has taken before
CALL = "serves the new code beside it, and a time limit ends this"
LOAD = "begins anew"


@dataclass(slots=True)
class _Seen:
    """What a thread does: the same as long as `begun` is, without an item more. It keeps nothing of it alive."""

    begun: float
    items: int
    since: float
    last: float  # when it was seen last
    method: str = ""  # that was told of


class Lasting:
    """`begun` are what the threads of pools do, `loading` what the one does that loads the model: by thread."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._model = ""
        self._places: Sequence[str] = ()
        self.begun: list[Mapping[int, Begun]] = []
        self.loading: dict[int, Begun] = {}
        self._seen: dict[int, _Seen] = {}
        self._usual: dict[str, float] = {}  # seconds that a method has taken, as far as it was told of

    def of(self, model: str, places: Sequence[str]) -> None:
        """Whose threads these are; `places` are the directories of its own code."""
        self._model, self._places = model, places

    def look(self) -> None:
        """Tell what has run for long by now."""
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
        if begun is None:  # it waits for its client, or a debugger holds it
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
    """How many its stream has sent."""
    run = begun[1][0] if begun[1] else None
    return run.window.sent if isinstance(run, Run) else 0
