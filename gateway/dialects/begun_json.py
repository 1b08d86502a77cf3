"""A JSON object that broke off, as far as it had come."""

from __future__ import annotations

import re
from typing import Any

from .object_pieces import decoded

# A sign, a string, or a number or word that something follows: what stands at the end may not be all of it.
_TOKEN = re.compile(
    r'\s*([{}\[\],:]|"[^"\\]*+(?:\\.[^"\\]*+)*+"'
    r"|(?:-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?=[\s,}\]]|$))",
    re.DOTALL,
)
_UNFINISHED = re.compile(r'\s*("[^"\\]*+(?:\\.[^"\\]*+)*+\\?|-?[\d.eE+-]*|t|tr|tru|f|fa|fal|fals|n|nu|nul)', re.DOTALL)
_MOST = 1 << 16  # values and signs, each of which is a step of Python; a string is one, however long
_CLOSES = {"{": "}", "[": "]"}


def begun_object(text: str) -> dict[str, Any] | None:
    """What is whole in it: the values that had ended, without a string or a name that had not.

    None if it is no object, or holds more values and signs than anybody should wait for. So do the SDKs of Anthropic
    read the pieces of a tool's input that `max_tokens` cut.
    """
    open_: list[str] = []  # the signs that close what is open
    at, left, is_name = 0, _MOST, False
    end = depth = 0  # of what is whole; nothing that was open there has been closed since
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
