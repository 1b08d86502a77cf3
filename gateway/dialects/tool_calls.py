"""The tool calls of one choice, assembled from pieces in which ids, indices and types may be missing.

A piece belongs to a call by these rules:
1. With an index: to the call with that index, unless the id differs.
2. With a known id: to that call.
3. With an unknown id, or a name: to a new call.
4. With neither: to the last call.

Calls are numbered from 0 as they appear. Id and name are sent once, with the first piece: clients append repeated ones.
"""

from __future__ import annotations

import secrets
from typing import Any

from ..errors import InvalidOutput
from ..wording import a_type
from .events import ToolCall, checked, encode_json, unwrap
from .fields import echoed
from .output_paths import Odd


class _Known:
    """A call so far. `id` is the model's own; `name` is None until it arrives."""

    __slots__ = ("id", "name")

    def __init__(self, given: str | None) -> None:
        self.id = given
        self.name: str | None = None


class ToolCalls:
    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._calls: list[_Known] = []
        # The first call by index, by index and id (or None), and by id, so that a lookup does not search all calls.
        self._by_index: dict[int, int] = {}
        self._by_both: dict[tuple[int, str | None], int] = {}
        self._by_id: dict[str, int] = {}

    def read(self, value: Any) -> ToolCall | None:
        """Return the event of a tool call or a piece of one, or None if it has nothing new.

        Raises:
            InvalidOutput: it is not a tool call, or arguments come before a name.
        """
        call = unwrap(value)
        if not isinstance(call, dict):
            raise Odd(f"the model returned {a_type(call)} among its tool_calls, not a dict", call)
        if call.get("type") not in (None, "function"):
            raise Odd(f"the model returned a tool call of type {echoed(call['type'])}; only functions are known", call)
        function = unwrap(call.get("function", call))  # or {"name", "arguments"} without the wrapper
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
            raise InvalidOutput(
                f"the model changed the name of a tool call from {echoed(known.name)} to {echoed(name)}"
            )
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
        """Check the calls at the end of the answer.

        Raises:
            InvalidOutput: a call has no name.
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
