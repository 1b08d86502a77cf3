"""Group output lines that belong together: a traceback with the line that introduces it.

Lines that our worker marks as one log record are grouped too. All other lines are passed on one by one. A traceback
ends at the next line that does not belong to it, and when the process is silent or ends: `flush`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..wire.frames import BEGINS, GOES_ON

MAX_LINES = 500  # lines of one block; the next line begins a new one
_BEGIN = re.compile(r"[ |+]*(?:Exception Group )?Traceback \(most recent call last\):").fullmatch
_CHAIN = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
# A line that introduces a traceback: our worker's line about a call, or an error record in the format of `logging`.
_HEADING = re.compile(r"\[[A-Za-z0-9._-]{1,128}\] |(?:ERROR|CRITICAL)[ :]").match


class Blocks:
    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._lines: list[str] = []
        self._is_record = False  # the open block is a record with marked lines
        self._in_frames = False  # False: the exception was named, and only a chained one may follow

    @property
    def is_open(self) -> bool:
        """Whether lines are held that may continue."""
        return bool(self._lines)

    def line(self, text: str, mark: str = "") -> None:
        """Add a line; `mark` is BEGINS or GOES_ON for a line of a record."""
        if mark == GOES_ON and self._is_record and len(self._lines) < MAX_LINES:
            self._lines.append(text)
            return
        if mark == BEGINS:
            self.flush()
            self._lines, self._is_record = [text], True
            return
        if self._is_record:  # the record has ended
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
            return False  # a heading, but no traceback yet
        return text in _CHAIN or text[0] in " |+"
