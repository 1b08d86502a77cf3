"""Write a model's output to the gateway's log: with level, logger name, and the call that a line is about.

The level is parsed from the line, in the formats of Python's loggers. A traceback is an error; any other line without a
level is info.
"""

from __future__ import annotations

import logging
import re

_LEVELS = {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
_WORDS = "|".join(_LEVELS)
_ID = re.compile(rf"\[(?!(?:{_WORDS})\])([A-Za-z0-9._-]{{1,128}})\] ").match  # a call id, as our workers write it
# Formats of our workers and of `logging` by default: LEVEL name: text, LEVEL:name:text
_RECORD = re.compile(rf"({_WORDS})[ :]([A-Za-z_][\w.]{{0,99}}): ?").match
# Common custom formats: LEVEL text, [LEVEL] text; a time, then LEVEL or a name and LEVEL. No part gives back what it
# took (`+` behind a repetition): the parts can match the same characters, and a model could have all ways tried.
_LEVEL = re.compile(
    rf"(?:[0-9][0-9T:.,+ /Z-]{{7,40}}+[ |-]*+(?:[A-Za-z_][\w.]{{0,99}}+[ :|-]++)??)?\[?({_WORDS})\b"
).match
_TRACEBACK = "Traceback (most recent call last):"


def write(model: str, text: str) -> None:
    """Write one line, or the lines of one record or traceback."""
    head, *rest = text.split("\n")
    named = _ID(head)
    start = named.end() if named else 0
    record = _RECORD(head, start)
    said = record or _LEVEL(head, start)
    trace = next((number for number, line in enumerate(rest) if _TRACEBACK in line), None)
    is_traceback = _TRACEBACK in head or trace is not None
    level = _LEVELS[said[1]] if said else logging.ERROR if is_traceback else logging.INFO
    message = "\n".join((head[record.end() if record else start :] or head, *rest[:trace]))
    fields: dict[str, object] = {"model": model, "line": text}
    if named:
        fields["request_id"] = named[1]
    if record:
        fields["source"] = record[2]
    if is_traceback:
        fields["error"] = text.splitlines()[-1].strip()
        fields["traceback"] = "\n".join(rest[trace:])
        if _TRACEBACK in head and rest:
            message, fields["traceback"] = rest[-1].strip(), text
    logger = logging.getLogger(f"gateway.model.{model.replace('/', '.')}")
    # A model's debug lines were enabled by its config.yaml: write them even if our own level is higher.
    if logger.isEnabledFor(max(level, logging.INFO)):
        logger.handle(logger.makeRecord(logger.name, level, "", 0, "%s", (message,), None, extra=fields))
