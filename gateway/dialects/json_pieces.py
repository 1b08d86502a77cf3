"""A JSON object that arrives in pieces, such as the arguments of a tool call. Each piece is scanned once."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from . import model_json

_TEXT = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)  # the rest of a string, up to its end or a partial escape


class ObjectPieces:
    """The pieces so far, and whether they are a complete object.

    They are decoded only when no bracket is open, so the text is decoded once, however often `whole` is read.
    """

    __slots__ = ("_depth", "_escapes", "_in_text", "_is_begun", "_is_wrong", "_looked", "_pieces", "_value")

    def __init__(self, text: str = "") -> None:
        self._pieces = [text] if text else []
        self._looked = 0  # how many pieces are scanned
        self._depth = 0
        self._is_begun = False  # something other than white space has come
        self._in_text = self._escapes = False  # a string is open; its next character is escaped
        self._is_wrong = False  # it cannot become an object
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
        """The object, or None while it is incomplete or if it is not an object.

        Raises:
            InvalidOutput: it would take too long to read; only once, and then it is not an object.
        """
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
            self._is_wrong = True  # also if the next line raises
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
    """Return the object in a text, or None if it is not one.

    Raises:
        InvalidOutput: it would take too long to read.
    """
    try:
        value = model_json.read(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
