"""Detect a method that expects one field of the body as its argument, as in `def chat_completions(self, messages)`.

It gets the whole body, a dict, so its list or string operations fail with misleading messages.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

from ..loading.tracebacks import is_own

# Fields of our routes that such methods expect. A predict gets whatever its client sent.
FIELDS = ("messages", "prompt", "input", "query", "texts", "documents", "text")


def about_body(error: BaseException, method: str, places: Sequence[str]) -> str:
    """Return a sentence for the author, or "" if the error has another cause. `places` are as in `tracebacks`."""
    if method == "predict" or not isinstance(error, (KeyError, TypeError, AttributeError)):
        return ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == method and is_own(frame.f_code.co_filename, places):
            return _about_argument(error, method, frame, linecache.getline(frame.f_code.co_filename, line))
    return ""


def _about_argument(error: BaseException, method: str, frame: FrameType, line: str) -> str:
    code, values = frame.f_code, frame.f_locals
    name = next((name for name in code.co_varnames[: code.co_argcount] if isinstance(values.get(name), dict)), None)
    if name is None or not _is_mistaken(error, name, values[name], code.co_consts, line):
        return ""
    body: dict[str, Any] = values[name]
    field = next((field for field in (name, *FIELDS) if field in body), None)
    text = f"{method} is given the whole body of the request, so {name} is a dict"
    return f'{text}; take {name}["{field}"]' if field else text


def _is_mistaken(error: BaseException, name: str, body: dict[str, Any], texts: Sequence[Any], line: str) -> bool:
    if getattr(error, "obj", None) is body:  # body.messages
        return True
    if f"{name}[" in line and _is_of_a_list(error):
        return True
    return name in body and name not in texts and not isinstance(error, KeyError)  # it never reads that field


def _is_of_a_list(error: BaseException) -> bool:
    """Return whether a dict was used like a list: with an index or a slice."""
    if isinstance(error, KeyError):
        return bool(error.args) and isinstance(error.args[0], int | slice)
    return isinstance(error, TypeError) and "'slice'" in str(error)
