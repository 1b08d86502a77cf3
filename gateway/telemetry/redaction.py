"""Remove secrets from texts."""

from __future__ import annotations

import json
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import zip_longest

MARK = "***"
_KEY = re.compile(r"gw_[0-9a-z]{1,16}_[A-Za-z0-9_-]{43}")  # an API key of this gateway or another
SHORTEST = 4, 8  # minimum length of a secret that is searched: a whole value, or a line of a longer one
# Characters at the end of a cut text that are not shown, because they may contain half a secret that is not found. The
# number does not depend on the secrets: otherwise an attacker could test guesses by having a text cut.
UNSURE = 2048
STEP = 4096  # values that are sorted at once
_START = min(SHORTEST)  # characters by which most places of a text are known to begin no secret


def _ways(value: str) -> tuple[str, ...]:
    """Return the forms of a value in a text: as it is, and as Python's repr and JSON write it, alone or inside a
    string.
    """
    return (
        value,
        repr(value)[1:-1],
        repr(f'"{value}')[2:-1],
        repr(value.encode(errors="replace"))[2:-1],
        repr(b'"' + value.encode(errors="replace"))[3:-1],
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
    )


class Redactor:
    """Remove given values, and whatever looks like an API key of a gateway, from texts.

    The result depends on whole values only, never on how much of one is there. Otherwise the output would show whether
    a guessed beginning is right. `shortest` is as above; shorter values would hide everything.
    """

    def __init__(self, values: Iterable[str] = (), shortest: tuple[int, int] = SHORTEST) -> None:
        self._shortest = shortest
        self._known: set[str] = set()
        self._search = _Search(())
        self._changing = threading.Lock()
        self.hide(values)

    def hide(self, values: Iterable[str]) -> None:
        """Show these values as *** from now on, in addition to earlier ones.

        Takes a time that grows with their length: a second for some million characters. Any thread may call it.
        """
        with self._changing:
            if new := set(values) - self._known:
                self._search = _Search({*self._search.values, *self._hidden(new)})
                self._known |= new

    def _hidden(self, values: Iterable[str]) -> Iterator[str]:
        for value in values:
            lines = [line.strip() for line in value.strip().splitlines()]  # keys and files have several
            shortest = self._shortest[len(lines) > 1]
            for line in lines:
                if len(line) >= shortest:
                    yield from _ways(line)

    def __call__(self, text: str) -> str:
        if "gw_" in text:
            text = _KEY.sub(MARK, text)
        return self._search.hide(text)


class _Search:
    """Find values in a text in a time that grows with the text, however many values there are and whatever they share.

    All values that a text begins with are beginnings of each other, and of the value that is the next one before that
    text in the order of the alphabet. So that one is looked up, and of its beginnings the longest that is there.
    """

    def __init__(self, values: Collection[str]) -> None:
        self.values = frozenset(values)
        # Of a value that does not fit into what a cut leaves out, so much is there when it was cut. Only this is
        # searched, and the rest of the line is hidden with it: a longer text would be compared at every place.
        self._heads = {value[:UNSURE] for value in self.values if len(value) > UNSURE}
        self._sorted = _in_order([*self._heads, *(value for value in self.values if len(value) <= UNSURE)])
        self._longest = max(map(len, self._sorted), default=0)
        self._beginnings: dict[int, tuple[str, ...]] = {}  # of each value that has some, from the shortest to itself
        nested: tuple[str, ...] = ()
        for number, value in enumerate(self._sorted):
            while nested and not value.startswith(nested[-1]):
                nested = nested[:-1]
            nested = (*nested, value)
            if len(nested) > 1:
                self._beginnings[number] = nested
        self._starts = {value[:_START] for value in self._sorted}
        seconds: dict[str, set[str]] = {}
        for value in self._starts:
            seconds.setdefault(re.escape(value[0]), set()).add(re.escape(value[1]))
        places = (f"{first}(?=[{''.join(sorted(second))}])" for first, second in sorted(seconds.items()))
        self._places = re.compile("|".join(places))

    def hide(self, text: str) -> str:
        """Replace every value; those that overlap together, or the rest of one of them would be shown."""
        if not self.values:
            return text
        shown: list[str] = []
        done = begin = end = 0  # what is dealt with, and the values that were found last
        line_end = 0  # of the last line whose rest is hidden; values have no line ends
        for place in self._places.finditer(text):
            start = place.start()
            if start < line_end or text[start : start + _START] not in self._starts:
                continue
            if not (found := self._longest_at(text, start)):
                continue
            if start >= end:
                shown += (text[done:begin], MARK) if end else ()
                done, begin = end, start
            if found in self._heads:
                line_end = text.find("\n", start)
                end = line_end = len(text) if line_end < 0 else line_end
            else:
                end = max(end, start + len(found))
        return "".join((*shown, text[done:begin], MARK, text[end:])) if end else text

    def _longest_at(self, text: str, start: int) -> str:
        """Return the longest value that begins there, or ""."""
        rest = text[start : start + self._longest]
        if not (number := bisect_right(self._sorted, rest)):
            return ""
        nested = self._beginnings.get(number - 1) or (self._sorted[number - 1],)
        if not (count := bisect_left(nested, True, key=lambda value: not rest.startswith(value))):
            return ""
        return nested[count - 1]


def _in_order(values: list[str]) -> list[str]:
    """Sort in steps: other threads run only between them, and there may be hundreds of thousands of values."""
    parts = [sorted(values[start : start + STEP]) for start in range(0, len(values), STEP)]
    while len(parts) > 1:
        parts = [sorted([*one, *other]) for one, other in zip_longest(parts[::2], parts[1::2], fillvalue=())]
    return parts[0] if parts else []


def apart(secrets: Mapping[str, str], written: Mapping[str, str | None] | None) -> tuple[list[str], list[str]]:
    """Return the values that the operator has set, and those that a config.yaml has itself (`written`)."""
    given = written or {}
    ours = [value for name, value in secrets.items() if value != given.get(name)]
    return ours, [value for name, value in secrets.items() if value == given.get(name)]


def cut(text: str, most: int) -> str:
    """Return the beginning of a text that goes to a log, redacted before it is cut: half a key is not recognized."""
    if len(text) <= most:
        return text
    shown = KNOWN(text[: most + UNSURE])
    if len(text) > most + UNSURE:  # its end may be half a key, and moves forward where something was hidden
        shown = shown[: max(0, len(shown) - UNSURE)]
    return shown[:most]


# Secrets that the operator has set for models and the gateway's own key, for the gateway's log. Longer minimum, so that
# "true" stays readable. What a config.yaml writes is not among them: it could hide any text of the log.
KNOWN = Redactor(shortest=(8, 8))
