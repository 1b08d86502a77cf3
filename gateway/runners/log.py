"""What a worker prints, line by line: bounded, redacted, and always drained, or a full pipe would block the model.

A line costs the gateway some fifty microseconds, and a model prints tens of thousands of them in no time. So each
worker has a budget. What is beyond it is counted and dropped, but for the last lines before a pause: they say what went
wrong.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable

from .. import printable
from ..redaction import KNOWN, UNSURE, Redactor
from ..wire import BEGINS, GOES_ON
from ..wording import counted
from .blocks import Blocks

log = logging.getLogger("gateway.models")

MAX_LINE = 2048  # characters
# bytes of a line that are read, four for a character: of what is cut there, the end is not shown
MAX_RAW = 4 * (MAX_LINE + UNSURE)
TAIL = 200  # lines kept for the report of a failed load
MARK = "... (truncated)"
MARKS = BEGINS.encode(), GOES_ON.encode()
A_SECOND, BURST = 500, 2000  # short lines; each 256 bytes of a long one count as another
TURN = 25  # lines in one turn of the loop: a millisecond
KEPT, LAST = 8192, 40  # bytes and lines that are kept of what is dropped
PARTIAL = 1.0  # seconds after which a line is shown that has no end yet: who prints it may wait for ever
BUFFER = 4096  # bytes; what comes as a multiple of them filled the buffer of its writer, and goes on in the next one
PAUSE = 0.2  # seconds without output after which they are shown
NAP = 0.005  # seconds between two reads of what is dropped: nobody waits for it, and it costs CPU
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LINE_END = re.compile(rb"\r\n|\r|\n")


class Budget:
    """So much a second, and a burst when nothing was used for a while. Once empty, it opens again when it has some."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._left, self._at = clock, float(BURST), clock()
        self._is_open = True

    @property
    def is_open(self) -> bool:
        now = self._clock()
        self._left, self._at = min(BURST, self._left + (now - self._at) * A_SECOND), now
        self._is_open = self._left > (0 if self._is_open else A_SECOND / 2)
        return self._is_open

    def spend(self, size: int) -> bool:
        """Pay for one line; False when nothing is left."""
        if self._left <= 0:
            return False
        self.owe(size)
        return True

    def owe(self, size: int) -> None:
        """Pay for one line that is shown in any case."""
        self._left -= 1 + size // 256


class LineReader:
    """Splits the output of one process; keeps its tail."""

    def __init__(
        self, emit: Callable[[str], None], secrets: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._emit = emit
        self._blocks = Blocks(self._pass_on)
        self._own = Redactor()
        self._rest = b""
        self._skipping = False  # the rest of a line that was too long
        self._is_held = False  # a line without its end that cannot be shown yet
        self._budget = Budget(clock)
        self._dropped = 0  # lines
        self._last = b""  # of them, the end
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
        try:
            while chunk := await self._read(stream):
                self._is_held = len(chunk) % BUFFER == 0
                lines = self._split(chunk)
                for start in range(0, len(lines), TURN):
                    self._take(lines[start : start + TURN])
                    await asyncio.sleep(0)
                if self._dropped:
                    await asyncio.sleep(NAP)
        finally:
            self.feed(b"", last=True)

    async def _read(self, stream: asyncio.StreamReader) -> bytes:
        while True:
            is_partial = bool(self._rest) and not (self._skipping or self._is_held)
            patience = PAUSE if self._dropped or self._blocks.is_open else PARTIAL if is_partial else None
            try:
                async with asyncio.timeout(patience):
                    return await stream.read(65536)
            except TimeoutError:
                self._confess()
                self._blocks.flush()
                if patience == PARTIAL:
                    self._show_partial()

    def _show_partial(self) -> None:
        """The line that has no end yet, unless a character has begun in it. No look at secrets: a line that waits
        because one may have begun would tell that it does."""
        if self._rest.decode("utf-8", "replace").endswith("\ufffd"):
            self._is_held = True
            return
        rest, self._rest = self._rest, b""
        self._end_line(rest)

    def feed(self, chunk: bytes, last: bool = False) -> None:
        self._take(self._split(chunk))
        if last:
            self._confess()
            rest, self._rest = self._rest, b""
            if not self._skipping:
                self._end_line(rest)
            self._blocks.flush()

    def _split(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete; none while they are dropped."""
        data = self._rest + chunk
        if not self._budget.is_open:
            self._drop(data)
            return []
        self._confess()
        # A bare carriage return is a progress bar redrawing its line: each state of it is a line here.
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if lines and self._skipping:
            self._skipping = False
            del lines[0]
        if len(rest) > MAX_RAW:
            if not self._skipping:
                lines.append(rest)
            self._skipping, rest = True, b""
        self._rest = rest
        return lines

    def _take(self, lines: list[bytes]) -> None:
        for number, raw in enumerate(lines):
            if not self._budget.spend(len(raw)):
                self._remember(b"\n".join(lines[number:]) + b"\n", len(lines) - number)
                return
            self._end_line(raw)

    def _drop(self, data: bytes) -> None:
        """Count the lines that are complete, at the pace of a memory copy."""
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        begin = 0
        if end and self._skipping and (found := _LINE_END.search(data)) is not None:
            self._skipping, begin = False, found.end()
        count = data.count(b"\n", begin, end) + data.count(b"\r", begin, end) - data.count(b"\r\n", begin, end)
        self._remember(data[begin:end], count)
        self._rest = data[end:]
        if len(self._rest) > MAX_RAW:
            self._dropped += not self._skipping
            self._skipping, self._rest = True, b""

    def _remember(self, data: bytes, count: int) -> None:
        self._dropped += count
        self._last = (self._last + data[-KEPT:])[-KEPT:]

    def _confess(self) -> None:
        """Say how many lines were dropped, and show the last of them."""
        if not self._dropped:
            return
        whole = self._last if len(self._last) < KEPT else self._last.partition(b"\n")[2]  # its first line is cut
        last = [raw for raw in _LINE_END.split(whole) if raw.strip()][-LAST:]
        lost = self._dropped - len(last)
        self._dropped, self._last = 0, b""
        if lost > 0:
            self.line(f"... {counted(lost, 'line')} dropped: this model prints more than {A_SECOND} a second".encode())
        for raw in last:
            self._budget.owe(len(raw))
            self.line(raw)

    def _end_line(self, raw: bytes) -> None:
        if raw.strip():
            self.line(raw)

    def line(self, raw: bytes) -> None:
        """One line, whoever it is from."""
        # Hidden first and cut then: half a secret would not be found.
        mark = chr(raw[0]) if raw[:1] in MARKS else ""
        is_cut = len(raw) > MAX_RAW
        text = self.redact(_COLOUR.sub("", raw[len(mark) : MAX_RAW].decode("utf-8", "replace")))
        text = printable.lines(text[:-UNSURE] if is_cut else text)
        if is_cut or len(text) > MAX_LINE:
            text = text[:MAX_LINE] + MARK
        self.tail.append(text)
        self._blocks.line(text, mark)

    def _pass_on(self, text: str) -> None:
        """A line, or the lines of a traceback."""
        try:
            self._emit(text)
        except Exception:  # or the pipe would fill, and the model stand still
            log.exception("a line of a model's log was lost")
