"""A JSON object that broke off, as far as it had come."""

from __future__ import annotations

import re
from typing import Any

import msgspec

# A sign, a string, or a number or word that something follows: what stands at the end may not be all of it.
_TOKEN = re.compile(
    r'\s*([{}\[\],:]|"(?:[^"\\]|\\.)*"|(?:-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?=[\s,}\]]|$))', re.DOTALL
)
_UNFINISHED = re.compile(r'\s*("(?:[^"\\]|\\.)*\\?|-?[\d.eE+-]*|t|tr|tru|f|fa|fal|fals|n|nu|nul)', re.DOTALL)
_CLOSES = {"{": "}", "[": "]"}


def begun_object(text: str) -> dict[str, Any] | None:
    """What is whole in it: the values that had ended, without a string or a name that had not; None if it is no object.

    So do the SDKs of Anthropic read the pieces of a tool's input that `max_tokens` cut.
    """
    open_: list[str] = []  # the signs that close what is open
    at, is_name = 0, False
    end = depth = 0  # of what is whole; nothing that was open there has been closed since
    while found := _TOKEN.match(text, at):
        token, at = found[1], found.end()
        if token in _CLOSES:
            open_.append(_CLOSES[token])
        elif token in ("}", "]") and (not open_ or open_.pop() != token):
            return None
        if token in (",", ":") or is_name:
            is_name = token == "," and open_[-1:] == ["}"]
            if token != "}":
                continue
        is_name = token == "{"
        end, depth = at, len(open_)
    if not _UNFINISHED.fullmatch(text, at):
        return None
    try:
        value = msgspec.json.decode(text[:end] + "".join(reversed(open_[:depth])))
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
