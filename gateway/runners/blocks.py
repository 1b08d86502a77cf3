"""Lines of a model's output that belong together: a traceback is one thing, with the line that says why it is there.

So are the lines that our worker marks as those of one record. Anything else is passed on line by line. A traceback ends
with the next line that is none of its own, and when its process is silent or ends: `flush`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..wire import BEGINS, GOES_ON

MAX_LINES = 500  # of one block: the next begins then
_BEGIN = re.compile(r"[ |+]*(?:Exception Group )?Traceback \(most recent call last\):").fullmatch
_CHAIN = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
# What is said before a traceback: our worker's line about a call, and a record of an error in the form of `logging`.
_HEADING = re.compile(r"\[[A-Za-z0-9._-]{1,128}\] |(?:ERROR|CRITICAL)[ :]").match


class Blocks:
    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._lines: list[str] = []
        self._is_record = False  # whose lines are marked
        self._in_frames = False  # or the exception has been named, and only a chain goes on

    @property
    def is_open(self) -> bool:
        """Whether lines are held that the next one may belong to."""
        return bool(self._lines)

    def line(self, text: str, mark: str = "") -> None:
        """`mark` is that of a line of a record, BEGINS or GOES_ON."""
        if mark == GOES_ON and self._is_record and len(self._lines) < MAX_LINES:
            self._lines.append(text)
            return
        if mark == BEGINS:
            self.flush()
            self._lines, self._is_record = [text], True
            return
        if self._is_record:  # it has ended
            self.flush()
        if self._lines and (self._takes(text) and len(self._lines) < MAX_LINES):
            self._lines.append(text)
            return
        self.flush()
        if _BEGIN(text) or _HEADING(text):
            self._in_frames = _BEGIN(text) is not None
            self._lines = [text]
        else:
            self._emit(text)

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        self._in_frames = self._is_record = False
        if lines:
            self._emit("\n".join(lines))

    def _takes(self, text: str) -> bool:
        if _BEGIN(text):
            taken = len(self._lines) == 1 or self._lines[-1] in _CHAIN or text[0] in " |+"
            self._in_frames = taken
            return taken
        if self._in_frames:
            self._in_frames = text[0] in " |+"
            return True  # its last line names the exception
        if len(self._lines) == 1:
            return False  # only a heading so far
        return text in _CHAIN or text[0] in " |+"
