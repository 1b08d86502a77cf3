"""What a worker prints, line by line: bounded, redacted, and always drained, or a full pipe would block the model."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable

from ..redaction import KNOWN, Redactor

log = logging.getLogger("gateway.models")

MAX_LINE = 2048  # bytes
TAIL = 200  # lines kept for the report of a failed load
MARK = "... (truncated)"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u2028\u2029]")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class LineReader:
    """Splits the output of one process; keeps its tail."""

    def __init__(self, emit: Callable[[str], None], secrets: Iterable[str] = ()) -> None:
        self._emit = emit
        self._own = Redactor()
        self._rest = b""
        self._skipping = False  # the rest of a line that was too long
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Show these values as *** from now on, and those of before still."""
        values = list(secrets)
        self._own.hide(values)
        KNOWN.hide(values)

    def redact(self, text: str) -> str:
        """The text without the model's secrets, and without what the gateway's own log hides."""
        return KNOWN(self._own(text))

    async def drain(self, stream: asyncio.StreamReader) -> None:
        """Read until every writer of the pipe is gone."""
        while chunk := await stream.read(65536):
            self.feed(chunk)
        self.feed(b"", last=True)

    def feed(self, chunk: bytes, last: bool = False) -> None:
        # A bare carriage return is a progress bar redrawing its line: each state of it is a line here.
        *lines, rest = (self._rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._end_line(line)
        if last:
            self._end_line(rest)
            rest = b""
        elif len(rest) > 2 * MAX_LINE:  # so that no secret lies across the cut
            if not self._skipping:
                self.line(rest)
            self._skipping, rest = True, b""
        self._rest = rest

    def _end_line(self, raw: bytes) -> None:
        if self._skipping:
            self._skipping = False
        elif raw.strip():
            self.line(raw)

    def line(self, raw: bytes) -> None:
        """One line, whoever it is from."""
        # Hidden first and cut then: half a secret would not be found.
        text = self.redact(_COLOUR.sub("", raw[: 4 * MAX_LINE].decode("utf-8", "replace")))
        text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
        if len(text) > MAX_LINE or len(raw) > 4 * MAX_LINE:
            text = text[:MAX_LINE] + MARK
        self.tail.append(text)
        try:
            self._emit(text)
        except Exception:  # or the pipe would fill, and the model stand still
            log.exception("a line of a model's log was lost")
