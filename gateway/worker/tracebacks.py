"""A traceback as the author of a model reads it: it begins with their own frame, and ours come after it or not at all.

Of every exception of a chain, for each has frames of its own.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

LIBRARY = os.path.dirname(os.__file__) + os.sep
# What leads to the code of a model and is not part of it: our package, and what imports and runs.
LEADING = (
    str(Path(__file__).resolve().parent.parent) + os.sep,
    "<frozen ",
    *(LIBRARY + name for name in ("asyncio/", "importlib/", "concurrent/", "contextlib.py", "threading.py")),
)

# Files of ours whose errors say it all: what they did behind the line of the model is nothing to look at.
TOLD = frozenset(str(Path(__file__).resolve().with_name(name)) for name in ("secrets.py", "terminal.py"))


def lines_of(error: BaseException, places: Sequence[str]) -> str:
    """The whole text. `places` are the directories of the model's own code."""
    told = traceback.TracebackException.from_exception(error)
    for step in _chain(told):
        frames = _own_first(step.stack, places)
        in_file = getattr(step, "filename", None)  # of a SyntaxError: it never was a frame, and the text names it
        if in_file and is_own(str(in_file), places) and not any(is_own(each.filename, places) for each in frames):
            frames = []
        step.stack = traceback.StackSummary.from_list(_without_told(frames, places))
    return "".join(told.format()).rstrip("\n")


def has_own(error: BaseException, places: Sequence[str]) -> bool:
    """Whether code below one of the directories was running when this one exception was raised."""
    return any(is_own(frame.f_code.co_filename, places) for frame, _ in traceback.walk_tb(error.__traceback__))


def is_own(file: str, places: Sequence[str]) -> bool:
    """Whether the file is below one of the directories."""
    return any(file.startswith(place.rstrip(os.sep) + os.sep) for place in places)


def is_leading(file: str) -> bool:
    return file.startswith(LEADING)


def _own_first(frames: Sequence[traceback.FrameSummary], places: Sequence[str]) -> Sequence[traceback.FrameSummary]:
    """From the first of the model's files on; of a model without, from the first that is not ours."""
    for number, frame in enumerate(frames):
        if is_own(frame.filename, places):
            return frames[number:]
    for number, frame in enumerate(frames):
        if not is_leading(frame.filename):
            return frames[number:]
    return frames  # all of it is ours


def _without_told(frames: Sequence[traceback.FrameSummary], places: Sequence[str]) -> Sequence[traceback.FrameSummary]:
    """Behind secrets["key"] or input() of the model's code there is nothing that its author could change."""
    last = len(frames)
    while last and frames[last - 1].filename in TOLD:
        last -= 1
    return frames[:last] if last and is_own(frames[last - 1].filename, places) else frames


def _chain(told: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Every exception that the text shows, once."""
    waiting: list[traceback.TracebackException | None] = [told]
    seen: set[int] = set()
    while waiting:
        step = waiting.pop()
        if step is not None and id(step) not in seen:
            seen.add(id(step))
            yield step
            waiting += [step.__cause__, step.__context__, *(getattr(step, "exceptions", None) or ())]
