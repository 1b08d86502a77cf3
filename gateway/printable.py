"""Text of others for a terminal or a log: nothing in it moves the cursor, begins a line, or turns the order around.

Escape sequences begin with a control character; bidirectional controls show a text as another one (Unicode, UAX 9 and
UTR 36). Letters that are written from right to left stay.
"""

from __future__ import annotations

import re

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_ODD = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{_BIDI}]")
_ODD_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_BIDI}]")


def one_line(text: str) -> str:
    """Return `text` with its control characters written out, as in `\\x1b` and `\\u202e`, line ends and tabs too."""
    return _ODD.sub(_written_out, text)


def quoted(text: str) -> str:
    """Return `text` in single quotes, on one line: none within can end them, for they are written out as `\\x27`."""
    return "'" + one_line(text).replace("'", "\\x27") + "'"


def lines(text: str) -> str:
    """The same, but that line ends and tabs stay."""
    return _ODD_IN_LINES.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
