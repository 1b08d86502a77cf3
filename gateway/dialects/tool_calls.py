"""The tool calls of one choice, made whole from what models give: ids, indices and types may all be missing.

A piece belongs
1. with an index → to the call of that index, unless its id says otherwise  2. with a known id → to that call
3. with an unknown id, or a name → to a new one  4. with neither → to the last one
Calls are numbered from 0 as they appear. Id and name go out once, with the first piece: clients append a repeated one.
"""

from __future__ import annotations

import secrets
from typing import Any

from ..errors import InvalidOutput
from ..wording import a_type
from .events import ToolCall, checked, encode_json, unwrap
from .located import Odd


class _Known:
    """A call so far. `index` and `id` are the model's own; `name` is None until it came."""

    __slots__ = ("id", "index", "name")

    def __init__(self, index: int | None, given: str | None) -> None:
        self.index, self.id = index, given
        self.name: str | None = None


class ToolCalls:
    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._calls: list[_Known] = []

    def read(self, value: Any) -> ToolCall | None:
        """The event of one tool call or piece of one; None when it says nothing new.

        Raises:
            InvalidOutput: it is no tool call, or arguments come before a name.
        """
        call = unwrap(value)
        if not isinstance(call, dict):
            raise Odd(f"the model returned {a_type(call)} among its tool_calls, not a dict", call)
        if call.get("type") not in (None, "function"):
            raise Odd(f"the model returned a tool call of type {call['type']!r}; only functions are known", call)
        function = unwrap(call.get("function", call))  # {"name", "arguments"} without the wrapper
        if not isinstance(function, dict):
            raise Odd(f"the function of a tool call is {a_type(function)}, not a dict", function)
        name, given = _text(function.get("name")), _text(call.get("id"))
        arguments = _arguments(function.get("arguments"))
        number = self._find(_index(call.get("index")), given, name)
        known = self._calls[number]
        if known.name is None and name is not None:
            known.name = name
            identity = known.id or f"call_{secrets.token_hex(16)}"
            return ToolCall(self._choice, number, identity, name, arguments)
        if known.name is None and arguments:
            raise Odd("the model returned arguments of a tool call before its name", call)
        if name not in (None, known.name):
            raise InvalidOutput(f"the model changed the name of a tool call from {known.name!r} to {name!r}")
        return ToolCall(self._choice, number, None, None, arguments) if arguments else None

    def _find(self, index: int | None, given: str | None, name: str | None) -> int:
        for number, known in enumerate(self._calls):
            if index is not None and known.index == index:
                if given is None or known.id in (None, given) or name is None:
                    return number
            elif index is None and given is not None and known.id == given:
                return number
        last = len(self._calls) - 1
        if index is None and given is None:
            unnamed = last >= 0 and self._calls[last].name is None
            if (name is None and last >= 0) or unnamed:
                return last
        self._calls.append(_Known(index, given))
        return last + 1

    def check(self) -> None:
        """Look at the calls when the answer has ended.

        Raises:
            InvalidOutput: one of them never got a name.
        """
        if any(known.name is None for known in self._calls):
            raise InvalidOutput("the model returned a tool call without a name")


def _index(value: Any) -> int | None:
    return value if type(value) is int else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _arguments(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return encode_json(checked(value, "the arguments of a tool call")).decode()
