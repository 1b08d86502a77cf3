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
    """A call so far. `id` is the model's own; `name` is None until it came."""

    __slots__ = ("id", "name")

    def __init__(self, given: str | None) -> None:
        self.id = given
        self.name: str | None = None


class ToolCalls:
    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._calls: list[_Known] = []
        # The first call with an index, with an index and an id (or none), with an id: no piece asks all of them.
        self._by_index: dict[int, int] = {}
        self._by_both: dict[tuple[int, str | None], int] = {}
        self._by_id: dict[str, int] = {}

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
        found: int | None = None
        last = len(self._calls) - 1
        if index is not None and (given is None or name is None):
            found = self._by_index.get(index)
        elif index is not None:
            both = (self._by_both.get((index, None)), self._by_both.get((index, given)))
            found = min((number for number in both if number is not None), default=None)
        elif given is not None:
            found = self._by_id.get(given)
        elif last >= 0 and (name is None or self._calls[last].name is None):
            found = last
        return self._begin(index, given) if found is None else found

    def _begin(self, index: int | None, given: str | None) -> int:
        number = len(self._calls)
        self._calls.append(_Known(given))
        if index is not None:
            self._by_index.setdefault(index, number)
            self._by_both.setdefault((index, given), number)
        if given is not None:
            self._by_id.setdefault(given, number)
        return number

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
