"""Make untrusted text safe for a terminal or a log: it cannot move the cursor, begin a line, or reorder text.

Escape sequences begin with a control character; bidirectional controls change the order in which text is displayed
(Unicode, UAX 9 and UTR 36). Letters of right-to-left scripts are kept. Lone surrogates, which JSON and the names of
files may contain, are no text: writing one would raise an error.
"""

from __future__ import annotations

import re

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LONE = "\ud800-\udfff"
_ODD = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{_BIDI}{_LONE}]")
_ODD_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_BIDI}{_LONE}]")
_ESCAPES = {ord(odd): odd.encode("unicode_escape").decode() for odd in _ODD.findall("".join(map(chr, range(0xE000))))}
_ESCAPES_IN_LINES = {number: text for number, text in _ESCAPES.items() if chr(number) not in "\t\n"}


def one_line(text: str) -> str:
    """Return `text` with control characters, line ends and tabs escaped, as in `\\x1b` and `\\u202e`."""
    return text.translate(_ESCAPES) if _ODD.search(text) else text


def quoted(text: str) -> str:
    """Return `text` on one line in single quotes; quotes inside are escaped as `\\x27`."""
    return "'" + one_line(text).replace("'", "\\x27") + "'"


def lines(text: str) -> str:
    """Like `one_line`, but keep line ends and tabs."""
    return text.translate(_ESCAPES_IN_LINES) if _ODD_IN_LINES.search(text) else text
