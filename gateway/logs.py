"""What the gateway writes to stderr: lines for people, or one JSON object a line for machines.

Clients and models have a say in what is logged, so control characters are escaped, long values are cut, and secrets are
taken out. Whoever reads the log may be slow or gone: lines wait in a bounded queue for a thread that writes them, and
those that find no room are counted.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from typing import Any, Literal

from . import printing
from .printable import one_line
from .redaction import KNOWN
from .wording import counted

MODELS = "gateway.model."  # begins the loggers of what models print
MAX_VALUE = 2048  # bytes of one value
MAX_TRACEBACK = 16 * 1024  # bytes, of the end: that is where the cause is
MAX_QUEUED = 4 * 1024 * 1024  # characters that wait to be written
LAST_LINES = 0.5  # seconds that the end of the process waits for the rest of them
# `line` is a record in the words for people, where they differ from its message.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "line"}


def set_up(form: Literal["text", "json"] = "text", level: str = "info") -> None:
    """Send all logging to stderr in this form."""
    _hold_descriptors()
    handler = Stderr()
    handler.setFormatter(JSONLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # What libraries tell of their debugging holds what clients and models have sent.
    root.setLevel("INFO" if level == "debug" else level.upper())
    logging.getLogger("gateway").setLevel(logging.DEBUG if level == "debug" else logging.NOTSET)
    for name in ("uvicorn", "asyncio"):  # their news are ours to tell
        logging.getLogger(name).setLevel(logging.WARNING)


def _hold_descriptors() -> None:
    """Or a socket would become descriptor 2 of a process that was started without it, and get what is written there."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)


class Stderr(logging.Handler):
    """Writes to whatever sys.stderr is at the moment: a progress display puts itself in its place. Never blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0  # lines that nobody read in time, or that could not be written
        self._told = 0  # of those
        self._lines: deque[str] = deque()
        self._size = 0
        self._is_writing = False
        self._is_torn = False  # what could not be written may have been so in part
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
        """Wait until everything is written, for a moment at most."""
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
            except Exception:  # nobody is there, or the disk is full
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
        """Each line of it begins as every line of a log does, or a model could forge the gateway's own."""
        return "\n".join(start + clean(line) for line in said.split("\n"))


class JSONLines(logging.Formatter):
    """{"time": …, "level": …, "logger": …, "message": …} and what the event carries beside it."""

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
        return json.dumps(event)  # ASCII only, which escapes every control character


def clean(text: str) -> str:
    """Return `text` as one bounded line without secrets."""
    return one_line(cut(KNOWN(text)))


def cut(text: str) -> str:
    """Return the first 2 KiB of `text`, with a mark where more was there."""
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
