"""What a worker prints, line by line: bounded, redacted, and always drained, or a full pipe would block the model."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable

MAX_LINE = 2048  # bytes
TAIL = 200  # lines kept for the report of a failed load
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u2028\u2029]")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class LineReader:
    """Splits the output of one process; keeps its tail."""

    def __init__(self, emit: Callable[[str], None], redact: tuple[str, ...] = ()) -> None:
        self._emit = emit
        self._redact = tuple(value for value in redact if len(value) >= 4)
        self._rest = b""
        self.tail: deque[str] = deque(maxlen=TAIL)

    async def drain(self, process: asyncio.subprocess.Process) -> None:
        """Read until every writer of the pipe is gone."""
        assert process.stdout is not None
        while chunk := await process.stdout.read(65536):
            self.feed(chunk)
        self.feed(b"", last=True)

    def feed(self, chunk: bytes, last: bool = False) -> None:
        # A bare carriage return is a progress bar redrawing its line: each state of it is a line here.
        *lines, rest = (self._rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if len(rest) > MAX_LINE:
            lines.append(rest[:MAX_LINE] + b"... (truncated)")
            rest = b""
        if last and rest:
            lines.append(rest)
            rest = b""
        self._rest = rest
        for line in lines:
            if line.strip():
                self._line(line)

    def _line(self, raw: bytes) -> None:
        if len(raw) > MAX_LINE:
            raw = raw[:MAX_LINE] + b"... (truncated)"
        text = _COLOUR.sub("", raw.decode("utf-8", "replace"))
        text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
        for secret in self._redact:
            text = text.replace(secret, "***")
        self.tail.append(text)
        self._emit(text)
