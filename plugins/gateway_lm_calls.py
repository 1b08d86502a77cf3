"""One tool call as JSON, read as it comes: its name, then the characters of its arguments."""

from __future__ import annotations

import json

ARGUMENTS = ("arguments", "parameters")  # Hermes, Qwen and Mistral say the first, Llama the second


class JsonCall:
    """Reads {"name": …, "arguments": …}, the keys in any order, others passed over.

    Arguments that stand before the name are kept until it is known. What is no such object is broken; `raw` is all that
    was read until the name was known. With a `name` from elsewhere, the arguments alone are read.

        state   what comes next                      then
        open    {                                    key
        key     , } or a string                      colon, or done after }
        colon   :                                    value
        value   a string, an object, a list, a word  key
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.raw = ""
        self.is_done = False
        self.is_broken = False
        self._is_alone = name is not None
        self._state = "value" if name else "open"
        self._key = "arguments" if name else None  # whose value is read; None while that is a key itself
        self._is_reading = False  # within a value
        self._value = ""  # of it, what nobody has got yet
        self._first = ""  # its first character
        self._depth = 0
        self._is_quoted = self._is_escaped = False
        self._has_arguments = False  # all of them
        self._kept = ""  # arguments that nobody has got yet

    def push(self, text: str) -> tuple[str, str]:
        """The arguments that came with `text`, and what of it was not read: what follows the object, or the name."""
        rest = ""
        for at, char in enumerate(text):
            was_named = self.name is not None
            if self.is_done or self.is_broken or not self._take(char):
                rest = text[at:]
                break
            if not was_named:
                self.raw += char
                if self.name is not None:
                    rest = text[at + 1 :]
                    break
        if self.name is None:
            return "", rest
        given, self._kept = self._kept, ""
        if self._is_reading and self._is_arguments and self._first == "{":
            given, self._value = given + self._value, ""
        return given, rest

    @property
    def _is_arguments(self) -> bool:
        return self._key in ARGUMENTS and not self._has_arguments

    def _take(self, char: str) -> bool:
        """False for a character that has no place here."""
        if self._is_reading:
            return self._take_value(char)
        if char.isspace() or (self._state == "key" and char == ","):
            return True
        if self._state == "open" and char == "{":
            self._state = "key"
        elif self._state == "key" and char == "}":
            self._close()
        elif self._state == "colon" and char == ":":
            self._state = "value"
        elif (self._state == "key" and char == '"') or (self._state == "value" and char not in ",:]}"):
            self._key = None if self._state == "key" else self._key
            self._is_reading, self._first = True, char
            return self._take_value(char)
        else:
            return self._break()
        return True

    def _take_value(self, char: str) -> bool:
        if self._first not in '"{[' and (char in ",}" or char.isspace()):  # the end of a number or a word
            return self._end_value() and self._take(char)
        self._value += char
        if self._is_escaped:
            self._is_escaped = False
        elif char == '"':
            self._is_quoted = not self._is_quoted
        elif self._is_quoted:
            self._is_escaped = char == "\\"
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
        is_whole = self._first in '"{[' and not self._is_quoted and self._depth <= 0
        return not is_whole or self._end_value()

    def _end_value(self) -> bool:
        value, self._value, self._is_reading = self._value, "", False
        if self._key is None:
            self._key, self._state = _string(value), "colon"
            return True
        self._state = "key"
        if self._is_arguments:
            self._has_arguments = True
            self.is_done = self._is_alone
            self._kept += value if self._first == "{" else _arguments(value)
        elif self._key == "name" and self.name is None:
            self.name = _string(value) or None
            return self.name is not None or self._break()
        return True

    def _close(self) -> None:
        self.is_done = self.name is not None
        self.is_broken = not self.is_done
        if self.is_done and not self._has_arguments:
            self._kept += "{}"

    def _break(self) -> bool:
        """After name and arguments nothing was lost: the call counts."""
        self.is_done = self.name is not None and self._has_arguments
        self.is_broken = not self.is_done
        return False


def _string(value: str) -> str:
    """What a JSON string says; nothing if it is none."""
    try:
        found = json.loads(value, strict=False)
    except ValueError:
        return ""
    return found if isinstance(found, str) else ""


def _arguments(value: str) -> str:
    """Arguments that are no object: some models write a string that holds it, or nothing."""
    return "{}" if value in ("null", '""') else _string(value) or value
