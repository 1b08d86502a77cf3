"""Split an answer, as it is generated, into thoughts, tool calls and text.

    text of tokens → Thinking → a tools.Parser → StopStrings → events

Stop strings apply to text only, not to thoughts and arguments. Events are those of `tools`, and
{"reasoning_content": …}.
"""

from __future__ import annotations

from .text import StopStrings, overlap
from .tools import Event, Parser

TAGS = OPEN, CLOSE = "<think>", "</think>"


class Thinking:
    """A thought between tags, at the beginning of the answer only. Whitespace around it belongs to the tags.

    If the prompt ends with the opening tag, as with some models' templates, the thought is already open. If the prompt
    ends inside a thought, the thought continues, including whitespace.
    """

    def __init__(self, is_open: bool, *, goes_on: bool = False) -> None:
        self.is_over = False
        self.is_open = is_open
        self._is_fresh = is_open and not goes_on  # leading whitespace belongs to the tag
        self._held = ""

    def push(self, text: str) -> tuple[str, str]:
        """Return the new text of the thought and of the answer."""
        if self.is_over and not self._is_fresh:
            return "", text
        text, self._held = self._held + text, ""
        if self.is_over:
            return "", self._trim(text)
        if not self.is_open:
            start = text.lstrip()
            if not start.startswith(OPEN):
                self.is_over = not OPEN.startswith(start)
                self._held = "" if self.is_over else text
                return "", text if self.is_over else ""
            self.is_open = self._is_fresh = True
            text = start[len(OPEN) :]
        thought, tag, said = self._trim(text).partition(CLOSE)
        if tag:
            self.is_over = self._is_fresh = True
            return thought.rstrip(), self._trim(said)
        sure = thought[: len(thought) - overlap(thought, CLOSE)].rstrip()
        self._held = thought[len(sure) :]
        return sure, ""

    def finish(self) -> tuple[str, str]:
        """Return the text that was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if not self.is_open:
            return "", held
        tag = overlap(held, CLOSE)  # max_tokens ended it inside the tag; "<" alone may be part of the thought
        return (held[: len(held) - tag] if tag > 1 else held).rstrip(), ""

    def _trim(self, text: str) -> str:
        text = text.lstrip() if self._is_fresh else text
        self._is_fresh = self._is_fresh and not text
        return text


class Answer:
    """The parts of an answer. `thinking` and `calls` are None if the model does not think, or may not call."""

    def __init__(self, thinking: Thinking | None, calls: Parser | None, stops: StopStrings) -> None:
        self._thinking, self._calls, self._stops = thinking, calls, stops

    @property
    def is_over(self) -> bool:
        return self._stops.found is not None or (self._calls is not None and self._calls.is_over)

    @property
    def stop(self) -> str | None:
        """Return the stop string that ended the answer."""
        return self._stops.found

    def arm_stops(self) -> None:
        """Let stop strings end the answer from now on."""
        self._stops.armed = True

    @property
    def may_think(self) -> bool:
        return self._thinking is not None

    @property
    def is_thinking(self) -> bool:
        return self._thinking is not None and self._thinking.is_open and not self._thinking.is_over

    @property
    def has_calls(self) -> bool:
        return self._calls is not None and self._calls.count > 0

    def push(self, text: str) -> list[Event]:
        if self.is_over:
            return []
        thought, said = ("", text) if self._thinking is None else self._thinking.push(text)
        return self._events(thought, [said] if self._calls is None else self._calls.push(said))

    def finish(self) -> list[Event]:
        """Return the events that were held back, at the end of the answer."""
        if self.is_over:
            return []
        thought, said = ("", "") if self._thinking is None else self._thinking.finish()
        given: list[Event] = [said]
        if self._calls is not None:
            given = [*self._calls.push(said), *self._calls.finish()]
        return self._events(thought, [*given, {}])

    def _events(self, thought: str, given: list[Event]) -> list[Event]:
        events: list[Event] = [{"reasoning_content": str(thought)}] if thought else []
        for event in given:
            if isinstance(event, str):
                text = self._stops.push(event)
            else:
                text = self._stops.rest()  # a stop string does not extend over a call
            if text:
                events.append(text)
            if self._stops.found is not None:
                break
            if event and not isinstance(event, str):
                events.append(event)
        return events
