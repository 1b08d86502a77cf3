"""Parse a JSON object that was cut off."""

from __future__ import annotations

import re
from typing import Any

from .json_pieces import decoded

# A sign, a string, or a number or word followed by something: at the end of the text it may be incomplete.
_TOKEN = re.compile(
    r'\s*([{}\[\],:]|"[^"\\]*+(?:\\.[^"\\]*+)*+"'
    r"|(?:-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?=[\s,}\]]|$))",
    re.DOTALL,
)
_UNFINISHED = re.compile(r'\s*("[^"\\]*+(?:\\.[^"\\]*+)*+\\?|-?[\d.eE+-]*|t|tr|tru|f|fa|fal|fals|n|nu|nul)', re.DOTALL)
_MOST = 1 << 16  # values and signs, each a step in Python; a string is one, whatever its length
_CLOSES = {"{": "}", "[": "]"}


def begun_object(text: str) -> dict[str, Any] | None:
    """Return the complete part of an object: the finished values, without an unfinished string or name.

    Return None if it is not an object, or has too many values and signs. Anthropic's SDKs read the pieces of a tool
    input that `max_tokens` cut off in the same way.
    """
    open_: list[str] = []  # closing signs of what is open
    at, left, is_name = 0, _MOST, False
    end = depth = 0  # end of the complete part; nothing open there has been closed since
    while found := _TOKEN.match(text, at):
        token, at, left = found[1], found.end(), left - 1
        if not left:
            return None
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
    return decoded(text[:end] + "".join(reversed(open_[:depth])))
