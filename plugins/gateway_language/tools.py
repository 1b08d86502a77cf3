"""Extract tool calls from a language model's output as it is generated, for model families that write JSON.

A parser gets the text piece by piece and returns events: a str is content, {"tool_calls": […]} begins a call with its
id and name or adds to its arguments. However the text is split, the events add up to the same result. Only text that
may become a tag is held back, and whitespace, which belongs to the tag after it.

Nothing that the model wrote is lost. A call that is not JSON, or breaks off, is
    content, as written, until its name is known        arguments, as written, after that

    Hermes     <tool_call>{"name": "f", "arguments": {…}}</tool_call> …     Qwen 2.5 and 3, and many others
    Llama      {"name": "f", "parameters": {…}}; …                          Llama 3, also after <|python_tag|>
    Mistral    [TOOL_CALLS][{"name": "f", "arguments": {…}}, …]             and, later, [TOOL_CALLS]f[ARGS]{…} …
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Collection
from typing import Any

from .calls import JsonCall
from .text import overlap

Event = str | dict[str, Any]


def family(template: str) -> type[Parser] | None:
    """Return the parser for the calls of a chat template; None if it supports no tools, or none in JSON."""
    if "tools" not in template or any(other in template for other in ("<function=", "<arg_key>", "<|tool_call")):
        return None
    return next((kind for kind in (Hermes, Mistral, Llama) if any(sign in template for sign in kind.signs)), None)


class Parser:
    """The common part of all families. `names` are the functions in the request.

    With `single`, the answer ends after its first call.
    """

    signs: tuple[str, ...] = ()  # one of these is in the family's chat template
    tags: tuple[str, ...] = ()  # tokens shown as text here, although the tokenizer calls some of them special
    id_length = 24
    # How calls in a row are written, for a grammar: what begins them, is between two, ends each, and ends them.
    begins, between, closes, after = "", "\n", "}", ""

    def __init__(self, names: Collection[str], *, single: bool = False) -> None:
        self.names = names
        self.single = single
        self.count = 0  # calls begun
        self.is_over = False
        self.call: JsonCall | None = None
        self._read = self._text
        self._held = ""  # may be the beginning of a tag
        self._written = ""  # text of the call, which becomes content if it is not a call
        self._is_named = False
        self._blanks = ""  # before the last tag
        self._is_fresh = False  # no text since the last call

    @staticmethod
    def forced(name: str) -> str:
        """Return how the family begins a call of this function, up to its arguments without a blank before them."""
        raise NotImplementedError

    def push(self, text: str) -> list[Event]:
        events: list[Event] = []
        text, self._held = self._held + text, ""
        while text and not self.is_over:
            text = self._read(text, events)
        return events

    def finish(self) -> list[Event]:
        """Return what was held back, at the end of the answer."""
        events: list[Event] = []
        held, self._held = self._held, ""
        if self.is_over:
            return events
        if self.call is not None and not self._is_named:
            self._content(self._written + self.call.raw, events)
        elif self.call is not None:
            self._arguments(held, events)
        elif held.strip() or not self._is_fresh:
            self._content(held, events)
        return events

    def _text(self, text: str, events: list[Event]) -> str:
        """Read content, up to a tag."""
        raise NotImplementedError

    def _begin(self, written: str, name: str = "") -> None:
        self.call, self._written, self._is_named = JsonCall(name or None), written, False
        self._read = self._object

    def _object(self, text: str, events: list[Event]) -> str:
        """Read a call; return the text after it."""
        assert self.call is not None
        arguments, rest = self.call.push(text)
        if self.call.name is not None and not self._is_named:
            if not self._accepts(self.call.name):
                return self._give_up(rest, events)
            self._is_named = True
            self._named(self.call.name, events)
        self._arguments(arguments, events)
        if self.call.is_done:
            self._end(self._after)
        elif self.call.is_broken and self._is_named:
            self._read = self._verbatim
        elif self.call.is_broken:
            return self._give_up(rest, events)
        return rest

    def _end(self, then: Callable[[str, list[Event]], str]) -> None:
        self.call, self._is_fresh, self._read = None, True, then
        self.is_over = self.single

    def _accepts(self, name: str) -> bool:
        return True

    def _give_up(self, rest: str, events: list[Event]) -> str:
        """Treat the text as content: it was not a call."""
        assert self.call is not None
        self._content(self._written + self.call.raw, events)
        self.call, self._read = None, self._text
        return rest

    def _after(self, text: str, events: list[Event]) -> str:
        """Read the text between a call and the next one, or the content."""
        raise NotImplementedError

    def _verbatim(self, text: str, events: list[Event]) -> str:
        """Read arguments that are not JSON, to the end."""
        self._arguments(text, events)
        return ""

    def _up_to(self, text: str, tags: Collection[str], events: list[Event]) -> tuple[str | None, str]:
        """Emit the content before the first tag; return that tag, or None, and the text after it."""
        if self._is_fresh:
            text = text.lstrip()
        found = min(((at, tag) for tag in tags if (at := text.find(tag)) >= 0), default=None)
        if found is not None:
            at, tag = found
            content = text[:at].rstrip()
            self._content(content, events)
            self._blanks = text[len(content) : at]
            return tag, text[at + len(tag) :]
        sure = text[: len(text) - max(overlap(text, tag) for tag in tags)].rstrip()
        self._content(sure, events)
        self._held = text[len(sure) :]
        return None, ""

    def _content(self, text: str, events: list[Event]) -> None:
        if text:
            self._is_fresh = False
            events.append(text)

    def _named(self, name: str, events: list[Event]) -> None:
        identity = secrets.token_hex(16)[: self.id_length]
        identity = identity if self.id_length == 9 else f"call_{identity}"
        function = {"name": name, "arguments": ""}
        call = {"index": self.count, "id": identity, "type": "function", "function": function}
        events.append({"tool_calls": [call]})
        self.count += 1

    def _arguments(self, text: str, events: list[Event]) -> None:
        if text:
            events.append({"tool_calls": [{"index": self.count - 1, "function": {"arguments": str(text)}}]})


class Hermes(Parser):
    OPEN, CLOSE = "<tool_call>", "</tool_call>"
    signs = (OPEN,)
    tags = (OPEN, CLOSE)
    closes = f"}}\n{CLOSE}"

    _is_open = False  # a call has ended, but its closing tag has not been read

    @staticmethod
    def forced(name: str) -> str:
        return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments":'

    def finish(self) -> list[Event]:
        if self._is_open and self._is_fresh and self.CLOSE.startswith(self._held.strip()):
            self._held = ""  # the end of a complete call
        return super().finish()

    def _text(self, text: str, events: list[Event]) -> str:
        tag, rest = self._up_to(text, self.tags if self._is_open else (self.OPEN,), events)
        if tag is not None:
            self._is_open = False
        if tag == self.OPEN:
            self._begin(self._blanks + tag)
        return rest

    def _after(self, text: str, events: list[Event]) -> str:
        self._is_open, self._read = True, self._text
        return text

    def _verbatim(self, text: str, events: list[Event]) -> str:
        written, tag, rest = text.partition(self.CLOSE)
        keep = 0 if tag else overlap(text, self.CLOSE)
        self._arguments(written[: len(written) - keep], events)
        if tag:
            self._end(self._text)
        else:
            self._held = written[len(written) - keep :]
        return rest


class Llama(Parser):
    """The whole answer is calls, or none of it: bare JSON is only a call if it names an offered function."""

    TAG = "<|python_tag|>"
    signs = (TAG, "ipython")
    tags = (TAG,)
    between = "; "

    @staticmethod
    def forced(name: str) -> str:
        return f'{{"name": {json.dumps(name)}, "parameters":'

    def _text(self, text: str, events: list[Event]) -> str:
        start = text.lstrip()
        if start.startswith("{"):
            self._begin(text[: len(text) - len(start)])
            return start
        if start.startswith(self.TAG):
            self._begin(text[: len(text) - len(start)] + self.TAG)
            return start[len(self.TAG) :]
        if self.TAG.startswith(start):
            self._held = text
        else:
            self._read = self._verbatim
            return text
        return ""

    def _accepts(self, name: str) -> bool:
        return name in self.names

    def _give_up(self, rest: str, events: list[Event]) -> str:
        rest = super()._give_up(rest, events)
        self._read = self._verbatim
        return rest

    def _after(self, text: str, events: list[Event]) -> str:
        start = text.lstrip()
        if start[:1] in (";", ","):
            self._begin(start[0])
            return start[1:]
        if start:
            self._read = self._verbatim
        return start

    def _verbatim(self, text: str, events: list[Event]) -> str:
        if self.call is not None:
            return super()._verbatim(text, events)
        self._content(text, events)
        return ""


class Mistral(Parser):
    TAG, ARGS = "[TOOL_CALLS]", "[ARGS]"
    signs = (TAG,)
    tags = (TAG, ARGS, "[CALL_ID]")
    id_length = 9  # its template accepts no other length
    begins, between, after = f"{TAG}[", ", ", "]"

    @staticmethod
    def forced(name: str) -> str:
        return f'[TOOL_CALLS][{{"name": {json.dumps(name)}, "arguments":'

    def _text(self, text: str, events: list[Event]) -> str:
        tag, rest = self._up_to(text, (self.TAG,), events)
        if tag is None:
            return ""
        self._read = self._head
        return self._blanks + tag + rest

    def _head(self, text: str, events: list[Event]) -> str:
        """Read the tag, and a list, an object, or a name with its arguments."""
        blanks, tag, rest = text.partition(self.TAG)
        start = rest.lstrip()
        written = blanks + tag + rest[: len(rest) - len(start)]
        if start.startswith("["):
            self._begin(written + "[")
            return start[1:]
        name, brace, arguments = start.partition("{")
        if not brace:
            self._held = text
            return ""
        self._begin(written + name, re.split(r"\[(?:ARGS|CALL_ID)\]", name)[0].strip())
        return brace + arguments

    def _after(self, text: str, events: list[Event]) -> str:
        start = text.lstrip()
        if start[:1] == ",":
            self._begin(start[0])
            return start[1:]
        if start:
            self._read = self._text
        return start.removeprefix("]")
