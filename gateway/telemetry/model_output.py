"""Read what a worker prints, line by line: bounded, redacted, and always drained, because a full pipe would block it.

A line costs the gateway about 50 µs, and a model can print tens of thousands at once. So each worker has a budget.
Lines beyond it are dropped and counted, except the last lines before a pause, which often say what went wrong.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable

from ..wire.frames import BEGINS, GOES_ON
from ..wording import counted
from . import printable
from .output_blocks import Blocks
from .redaction import KNOWN, UNSURE, Redactor

log = logging.getLogger("gateway.models")

MAX_LINE = 2048  # characters
# bytes read of a line, four for a character; the end of a line cut here is not shown (see UNSURE)
MOST = MAX_LINE + UNSURE  # characters in which secrets are looked for
MAX_RAW = 4 * MOST
TAIL = 200  # lines kept for the report of a failed load
MARK = "... (truncated)"
MARKS = BEGINS.encode(), GOES_ON.encode()
A_SECOND, BURST = 500, 2000  # lines; each 256 bytes of a long line count as another line
TURN, TURN_SIZE = 25, 4096  # lines and bytes in one turn of the event loop: about 1 ms
KEPT, LAST = 8192, 40  # bytes and lines kept of what is dropped
PARTIAL = 1.0  # seconds after which an unfinished line is shown: its writer may wait forever, as for input
BUFFER = 4096  # bytes; output of a multiple of this filled its writer's buffer and continues in the next write
PAUSE = 0.2  # seconds without output after which the kept lines are shown
NAP = 0.005  # seconds between two reads while lines are dropped, to save CPU
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LINE_END = re.compile(rb"\r\n|\r|\n")


class Budget:
    """A rate limit of A_SECOND lines a second with a burst.

    Once empty, it reopens when half a second's worth is back.
    """

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
        """Pay for one line; False if nothing is left."""
        if self._left <= 0:
            return False
        self.owe(size)
        return True

    def owe(self, size: int) -> None:
        """Pay for one line that is shown in any case."""
        self._left -= 1 + size // 256


class LineReader:
    """Split the output of one process into lines and keep the last ones."""

    def __init__(
        self, emit: Callable[[str], None], secrets: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`secrets` are hidden as `hide` does it."""
        self._emit = emit
        self._blocks = Blocks(self._pass_on)
        self._own = Redactor()
        self._rest = b""
        self._skipping = False  # inside a line that was too long
        self._is_held = False  # an unfinished line that cannot be shown yet
        self._budget = Budget(clock)
        self._dropped = 0  # lines
        self._last = b""  # the end of the dropped lines
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.hide(secrets)

    def hide(self, secrets: Iterable[str], written: Iterable[str] = ()) -> None:
        """Show these values as *** from now on, in addition to earlier ones.

        `written` are values that the model's config.yaml has: hidden here and nowhere else, because they could hide any
        text of the gateway and of other models.
        """
        values = list(secrets)
        self._own.hide([*values, *written])
        KNOWN.hide(values)

    def redact(self, text: str) -> str:
        """Return the text without the model's secrets and without the values hidden in the gateway's own log."""
        return KNOWN(self._own(text))

    def shown(self, text: str, is_cut: bool = False) -> str:
        """Return what may be shown of a text of the model, however long it is: without secrets, printable and cut.

        `is_cut` says that something behind it is left out already.
        """
        is_cut = is_cut or len(text) > MOST
        text = self.redact(text[:MOST])
        text = text[:-UNSURE] if is_cut else text
        is_cut = is_cut or len(text) > MAX_LINE
        text = printable.lines(text[:MAX_LINE])  # of what is not shown nothing is escaped: that takes time
        return text[:MAX_LINE] + MARK if is_cut or len(text) > MAX_LINE else text

    async def drain(self, stream: asyncio.StreamReader) -> None:
        """Read until every writer of the pipe has closed it."""
        try:
            while chunk := await self._read(stream):
                self._is_held = len(chunk) % BUFFER == 0
                lines = self._split(chunk)
                while lines:
                    lines = self._take_some(lines)
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
        """Show an unfinished line, unless it ends inside a character.

        It is not checked for the beginning of a secret: holding such a line back would reveal that it has one.
        """
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
        """Return the complete lines; none while lines are dropped."""
        data = self._rest + chunk
        if not self._budget.is_open:
            self._drop(data)
            return []
        self._confess()
        # A bare carriage return is a progress bar that redraws its line: each state is a line here.
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

    def _take_some(self, lines: list[bytes]) -> list[bytes]:
        """Take as many as one turn of the event loop may have, and return the others."""
        count = size = 0
        while count < min(TURN, len(lines)) and size < TURN_SIZE:
            size += len(lines[count])
            count += 1
        self._take(lines[:count])
        return lines[count:]

    def _take(self, lines: list[bytes]) -> None:
        for number, raw in enumerate(lines):
            if not self._budget.spend(len(raw)):
                self._remember(b"\n".join(lines[number:]) + b"\n", len(lines) - number)
                return
            self._end_line(raw)

    def _drop(self, data: bytes) -> None:
        """Count complete lines without decoding them, which is as fast as a memory copy."""
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
        """Report how many lines were dropped, and show the last of them."""
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
        """Redact one line, cut it, and pass it on."""
        # Redact before cutting: half a secret would not be found.
        mark = chr(raw[0]) if raw[:1] in MARKS else ""
        is_cut = len(raw) > MAX_RAW
        text = _COLOUR.sub("", raw[len(mark) : MAX_RAW].decode("utf-8", "replace"))
        text = self.shown(text, is_cut)
        self.tail.append(text)
        self._blocks.line(text, mark)

    def _pass_on(self, text: str) -> None:
        """Emit a line, or the lines of a traceback."""
        try:
            self._emit(text)
        except Exception:  # keep draining, or the pipe would fill and block the model
            log.exception("a line of a model's log was lost")
