"""Format tracebacks for the author of a model: the model's own frames come first, ours after them or not at all.

This applies to every exception of a chain, because each has its own frames.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

LIBRARY = os.path.dirname(os.__file__) + os.sep
# Frames that lead to the code of a model: our package, and modules that import and run code.
LEADING = (
    str(Path(__file__).resolve().parents[2]) + os.sep,
    "<frozen ",
    *(LIBRARY + name for name in ("asyncio/", "importlib/", "concurrent/", "contextlib.py", "threading.py")),
)

# Our files whose errors explain everything: their frames below the model's line are omitted.
TOLD = frozenset(str(Path(__file__).resolve().with_name(name)) for name in ("secrets.py", "terminal.py"))


def lines_of(error: BaseException, places: Sequence[str]) -> str:
    """Format the whole text. `places` are the directories of the model's own code."""
    told = traceback.TracebackException.from_exception(error)
    for step in _chain(told):
        frames = _own_first(step.stack, places)
        in_file = getattr(step, "filename", None)  # of a SyntaxError, which has no frame; the text names the file
        if in_file and is_own(str(in_file), places) and not any(is_own(each.filename, places) for each in frames):
            frames = []
        step.stack = traceback.StackSummary.from_list(_without_told(frames, places))
    return "".join(told.format()).rstrip("\n")


def has_own(error: BaseException, places: Sequence[str]) -> bool:
    """Return whether code in one of the directories was running when this exception (not its chain) was raised."""
    return any(is_own(frame.f_code.co_filename, places) for frame, _ in traceback.walk_tb(error.__traceback__))


def is_own(file: str, places: Sequence[str]) -> bool:
    """Return whether the file is in one of the directories."""
    return any(file.startswith(place.rstrip(os.sep) + os.sep) for place in places)


def is_leading(file: str) -> bool:
    return file.startswith(LEADING)


def _own_first(frames: Sequence[traceback.FrameSummary], places: Sequence[str]) -> Sequence[traceback.FrameSummary]:
    """Return the frames from the first in the model's files on; if there is none, from the first that is not ours."""
    for number, frame in enumerate(frames):
        if is_own(frame.filename, places):
            return frames[number:]
    for number, frame in enumerate(frames):
        if not is_leading(frame.filename):
            return frames[number:]
    return frames  # all frames are ours


def _without_told(frames: Sequence[traceback.FrameSummary], places: Sequence[str]) -> Sequence[traceback.FrameSummary]:
    """Omit our frames after secrets["key"] or input() in the model's code: they do not help its author."""
    last = len(frames)
    while last and frames[last - 1].filename in TOLD:
        last -= 1
    return frames[:last] if last and is_own(frames[last - 1].filename, places) else frames


def _chain(told: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield every exception that the text shows, once."""
    waiting: list[traceback.TracebackException | None] = [told]
    seen: set[int] = set()
    while waiting:
        step = waiting.pop()
        if step is not None and id(step) not in seen:
            seen.add(id(step))
            yield step
            waiting += [step.__cause__, step.__context__, *(getattr(step, "exceptions", None) or ())]
