"""An answer as it comes, taken apart: what the model thought, whom it called, what it said.

    text of tokens → Thinking → a tools.Parser → StopStrings → events

Stop strings look at what is said, not at thoughts and arguments. Events are those of gateway_lm_tools, and
{"reasoning_content": …}.
"""

from __future__ import annotations

from gateway_lm_text import StopStrings, overlap
from gateway_lm_tools import Event, Parser

TAGS = OPEN, CLOSE = "<think>", "</think>"


class Thinking:
    """A thought between tags, at the beginning of the answer only; blanks around it belong to the tags.

    A prompt that ends with the opening tag, as the templates of some models do, has opened it already; one that ends
    within a thought goes on with it, blanks and all.
    """

    def __init__(self, is_open: bool, *, goes_on: bool = False) -> None:
        self.is_over = False
        self.is_open = is_open
        self._is_fresh = is_open and not goes_on  # blanks that come now are the tag's
        self._held = ""

    def push(self, text: str) -> tuple[str, str]:
        """What is thought, and what is said."""
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
        """What was held back, when the answer has ended."""
        held, self._held = self._held, ""
        if not self.is_open:
            return "", held
        tag = overlap(held, CLOSE)  # max_tokens ended it within the tag; "<" alone may be the thought's
        return (held[: len(held) - tag] if tag > 1 else held).rstrip(), ""

    def _trim(self, text: str) -> str:
        text = text.lstrip() if self._is_fresh else text
        self._is_fresh = self._is_fresh and not text
        return text


class Answer:
    """`thinking` and `calls` are None where the model does not think, or nothing may be called."""

    def __init__(self, thinking: Thinking | None, calls: Parser | None, stops: StopStrings) -> None:
        self._thinking, self._calls, self._stops = thinking, calls, stops

    @property
    def is_over(self) -> bool:
        return self._stops.found is not None or (self._calls is not None and self._calls.is_over)

    @property
    def stop(self) -> str | None:
        """The stop string that ended it."""
        return self._stops.found

    def arm_stops(self) -> None:
        """Stop strings end it from now on."""
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
        """What was held back, when the model has ended."""
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
                text = self._stops.rest()  # a stop string does not reach over a call
            if text:
                events.append(text)
            if self._stops.found is not None:
                break
            if event and not isinstance(event, str):
                events.append(event)
        return events
