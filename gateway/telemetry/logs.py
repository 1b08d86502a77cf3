"""The gateway's log on stderr: text lines for people, or one JSON object a line for machines.

Log lines contain data from clients and models. So control characters are escaped, long values are cut, and secrets are
removed. The reader of stderr may be slow or gone: lines go through a bounded queue to a writer thread, and lines that
do not fit are dropped and counted.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from typing import Any, Literal

from ..wording import counted
from . import printing
from .printable import one_line
from .redaction import KNOWN

MODELS = "gateway.model."  # prefix of the loggers for the output of models
MAX_VALUE = 2048  # bytes
MAX_TRACEBACK = 16 * 1024  # bytes; the end is kept, because the cause is there
MAX_QUEUED = 4 * 1024 * 1024  # characters waiting to be written
LAST_LINES = 0.5  # seconds to wait for the remaining lines at exit
# `line` is the text for people, where it differs from the record's message.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "line"}


def set_up(form: Literal["text", "json"] = "text", level: str = "info") -> None:
    """Send all logging to stderr in this format."""
    _hold_descriptors()
    handler = Stderr()
    handler.setFormatter(JSONLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Debug logs of libraries contain data of clients and models.
    root.setLevel("INFO" if level == "debug" else level.upper())
    logging.getLogger("gateway").setLevel(logging.DEBUG if level == "debug" else logging.NOTSET)
    for name in ("uvicorn", "asyncio"):  # the gateway logs these events itself
        logging.getLogger(name).setLevel(logging.WARNING)


def _hold_descriptors() -> None:
    """Occupy descriptors 0 to 2.

    If the process was started without them, a socket could become stderr and receive the log.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)


class Stderr(logging.Handler):
    """Write to the current sys.stderr, which a progress display may replace. Never blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0  # lines that were not read in time or could not be written
        self._told = 0  # how many of those have been reported
        self._lines: deque[str] = deque()
        self._size = 0
        self._is_writing = False
        self._is_torn = False  # the last write failed and may have left a partial line
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if self._size + len(line) > MAX_QUEUED:
                self.dropped += 1
                return
            self._lines.append(line)
            self._size += len(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything is written, but only for a moment."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._is_writing, LAST_LINES)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._lines))
                lines, self._size, self._is_writing = list(self._lines), 0, True
                self._lines.clear()
                lost = self.dropped - self._told
            text = "".join(("\n", *lines) if self._is_torn else lines) + (self._confession(lost) if lost else "")
            try:
                printing.write(text, "stderr")
            except Exception:  # no reader, or the disk is full
                with self._changed:
                    self.dropped += len(lines)
                self._is_torn = True
            else:
                self._told += lost
                self._is_torn = False

    def _confession(self, lost: int) -> str:
        what = f"lost from this log: {counted(lost, 'line')}"
        return self.format(logging.LogRecord("gateway.logs", logging.WARNING, "", 0, what, None, None)) + "\n"


class TextLines(logging.Formatter):
    """2026-11-21 22:40:12 WARNING shout | a line that the model printed"""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno <= logging.INFO else f"{record.levelname} "
        model, said = clean(str(getattr(record, "model", None) or "")), getattr(record, "line", None)
        if said is not None:
            return self._as_said(f"{when} {model} | " if record.name.startswith(MODELS) else f"{when} ", said)
        message = clean(record.getMessage())
        about = f"{model} | " if model and f"'{model}'" not in message and not message.startswith(f"{model}:") else ""
        line = f"{when} {level}{about}{message}"
        return "\n".join((line, *map(clean, _traceback(record).splitlines())))

    def _as_said(self, start: str, said: str) -> str:
        """Prefix every line, so that a model cannot forge lines of the gateway."""
        return "\n".join(start + clean(line) for line in said.split("\n"))


class JSONLines(logging.Formatter):
    """{"time": …, "level": …, "logger": …, "message": …} and the event's own fields"""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": cut(KNOWN(record.getMessage())),
        }
        for name, value in vars(record).items():
            if name not in _USUAL:
                event[name] = value if isinstance(value, (int, float, bool, type(None))) else cut(KNOWN(str(value)))
        if traceback := getattr(record, "traceback", None):
            event["traceback"] = _end_of(KNOWN(traceback))
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            event["error"] = cut(KNOWN(f"{type(error).__name__}: {error}"))
            event["traceback"] = _traceback(record)
        return json.dumps(event)  # ASCII only, so every control character is escaped


def clean(text: str) -> str:
    """Return `text` as one bounded line without secrets."""
    return one_line(cut(KNOWN(text)))


def cut(text: str) -> str:
    """Return the first 2 KiB of `text`, with a mark if it was longer."""
    if len(text) * 4 <= MAX_VALUE:  # no character takes more than four bytes
        return text
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= MAX_VALUE:
        return text
    return data[:MAX_VALUE].decode("utf-8", "ignore") + f"... ({len(data)} bytes)"


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    text = KNOWN(logging.Formatter().formatException(record.exc_info))
    return _end_of(text)


def _end_of(text: str) -> str:
    return text if len(text) <= MAX_TRACEBACK else f"...\n{text[-MAX_TRACEBACK:].partition(chr(10))[2]}"
