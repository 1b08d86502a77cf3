"""What the gateway writes to stderr: lines for people, or one JSON object a line for machines.

Clients and models have a say in what is logged, so control characters are escaped and long values are cut.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any, Literal

MAX_VALUE = 2048  # bytes of one value
MAX_TRACEBACK = 16 * 1024  # bytes, of the end: that is where the cause is
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(form: Literal["text", "json"] = "text", level: str = "info") -> None:
    """Send all logging to stderr in this form."""
    handler = _Stderr()
    handler.setFormatter(JSONLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "asyncio"):  # their news are ours to tell
        logging.getLogger(name).setLevel(logging.WARNING)


class _Stderr(logging.Handler):
    """Writes to whatever sys.stderr is at the moment: a progress display puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class TextLines(logging.Formatter):
    """2026-11-21 22:40:12 WARNING shout | a line that the model printed"""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno <= logging.INFO else f"{record.levelname} "
        model = getattr(record, "model", None)
        line = f"{when} {level}{f'{model} | ' if model else ''}{clean(record.getMessage())}"
        return "\n".join((line, *map(clean, _traceback(record).splitlines())))


class JSONLines(logging.Formatter):
    """{"time": …, "level": …, "logger": …, "message": …} and what the event carries beside it."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": cut(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in _USUAL:
                event[name] = value if isinstance(value, (int, float, bool, type(None))) else cut(str(value))
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            event["error"] = cut(f"{type(error).__name__}: {error}")
            event["traceback"] = _traceback(record)
        return json.dumps(event)  # ASCII only, which escapes every control character


def clean(text: str) -> str:
    """Return `text` as one bounded line."""
    return _CONTROL.sub(_escape, cut(text))


def cut(text: str) -> str:
    """Return the first 2 KiB of `text`, with a mark where more was there."""
    if len(text) * 4 <= MAX_VALUE:  # no character takes more than four bytes
        return text
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= MAX_VALUE:
        return text
    return data[:MAX_VALUE].decode("utf-8", "ignore") + f"... ({len(data)} bytes)"


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    text = logging.Formatter().formatException(record.exc_info)
    return text if len(text) <= MAX_TRACEBACK else f"...\n{text[-MAX_TRACEBACK:].partition(chr(10))[2]}"
