"""Parse one JSON tool call incrementally: its name, then the characters of its arguments."""

from __future__ import annotations

import json

ARGUMENTS = ("arguments", "parameters")  # Hermes, Qwen and Mistral use the first, Llama the second


class JsonCall:
    """Parses {"name": …, "arguments": …}, with keys in any order; other keys are ignored.

    Arguments before the name are kept until the name is known. Anything else is broken. `raw` is the text read until
    the name was known. With a given `name`, only the arguments are parsed.

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
        self._key = "arguments" if name else None  # the key of the value being read; None while reading a key
        self._is_reading = False  # inside a value
        self._value = ""  # the part of it that was not returned yet
        self._first = ""  # its first character
        self._depth = 0
        self._is_quoted = self._is_escaped = False
        self._has_arguments = False  # complete
        self._kept = ""  # arguments that were not returned yet

    def push(self, text: str) -> tuple[str, str]:
        """Return the new arguments, and the unread rest of `text`: after the object, or after the name."""
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
        """Consume a character; return False if it is not allowed here."""
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
        """Stop parsing. A call with name and arguments is complete, because nothing was lost."""
        self.is_done = self.name is not None and self._has_arguments
        self.is_broken = not self.is_done
        return False


def _string(value: str) -> str:
    """Return the content of a JSON string; "" if it is not one."""
    try:
        found = json.loads(value, strict=False)
    except ValueError:
        return ""
    return found if isinstance(found, str) else ""


def _arguments(value: str) -> str:
    """Return arguments that are not an object: some models write a string that contains it, or nothing."""
    return "{}" if value in ("null", '""') else _string(value) or value
