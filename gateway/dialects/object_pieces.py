"""A JSON object that comes in pieces, such as the arguments of a tool call: each piece is looked at once."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_TEXT = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)  # of a string, up to its end or to half an escape


class ObjectPieces:
    """The pieces so far, and whether they are one whole object by now.

    Only where no bracket is open may they be, so that a text is read once, however often somebody asks.
    """

    __slots__ = ("_depth", "_escapes", "_in_text", "_is_begun", "_is_wrong", "_looked", "_pieces", "_value")

    def __init__(self, text: str = "") -> None:
        self._pieces = [text] if text else []
        self._looked = 0  # how many of them are looked at
        self._depth = 0
        self._is_begun = False  # something but space has come
        self._in_text = self._escapes = False  # a string is open; its next character is escaped
        self._is_wrong = False  # whatever comes, it will be no object
        self._value: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, text: str) -> None:
        if text:
            self._pieces.append(text)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def whole(self) -> dict[str, Any] | None:
        """The object; None while it is not complete, and where it is none."""
        if self._looked < len(self._pieces) and not self._is_wrong:
            self._look("".join(self._pieces[self._looked :]))
            self._looked = len(self._pieces)
        return self._value

    def _look(self, piece: str) -> None:
        if not self._is_begun:
            piece = piece.lstrip()
            self._is_begun, self._is_wrong = bool(piece), bool(piece) and not piece.startswith("{")
        if self._value is not None and piece.strip():
            self._value, self._is_wrong = None, True
        if not self._is_begun or self._is_wrong or self._value is not None:
            return
        self._walk(piece)
        if self._depth <= 0 and not self._in_text:
            self._value = decoded(self.text)
            self._is_wrong = self._value is None

    def _walk(self, piece: str) -> None:
        at, end = 0, len(piece)
        while at < end:
            if self._in_text:
                found = _TEXT.match(piece, at + self._escapes)
                at = found.end() if found is not None else end
                self._escapes = piece.startswith("\\", at)
                self._in_text = at == end or self._escapes
                at += 1
            else:
                quote = piece.find('"', at)
                stop = quote if quote >= 0 else end
                self._depth += piece.count("{", at, stop) + piece.count("[", at, stop)
                self._depth -= piece.count("}", at, stop) + piece.count("]", at, stop)
                self._in_text = quote >= 0
                at = stop + 1


def decoded(text: str) -> dict[str, Any] | None:
    """The object that a text is; None when it is none."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
