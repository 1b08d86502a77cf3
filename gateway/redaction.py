"""Values that must not be written anywhere, taken out of texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

MARK = "***"
_KEY = re.compile(r"gw_[0-9a-z]{1,16}_[A-Za-z0-9_-]{43}")  # a key of the gateway, of this one or another
SHORTEST = 4, 8  # characters of a secret that is looked for: whole, or a line of a longer one
# characters of the end of a text that was cut which are not shown: half a value may lie in them that nothing finds. It
# is the same number whatever the values are, or who has a text cut could try out how one begins.
UNSURE = 2048


def _ways(value: str) -> tuple[str, ...]:
    """How a value stands in a text: as it is, and as Python's repr and JSON write it, alone or among other words."""
    return (
        value,
        repr(value)[1:-1],
        repr(f'"{value}')[2:-1],
        repr(value.encode(errors="replace"))[2:-1],
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
    )


class Redactor:
    """Takes the values that it was told, and whatever looks like a key of a gateway, out of texts.

    What it does depends on whole values only, never on how much of one is there: that would tell who guesses one when
    its beginning is right. `shortest` as above: shorter ones would hide everything.
    """

    def __init__(self, values: Iterable[str] = (), shortest: tuple[int, int] = SHORTEST) -> None:
        self._shortest = shortest
        self._hidden: list[str] = []
        self._long: list[re.Pattern[str]] = []  # of those that do not fit into what a cut leaves out
        self.hide(values)

    def hide(self, values: Iterable[str]) -> None:
        """Show these as *** from now on, and those of before still."""
        for value in values:
            lines = [line.strip() for line in value.strip().splitlines()]  # a key is many lines, a file ends in a break
            shortest = self._shortest[len(lines) > 1]
            shown = (way for line in lines if len(line) >= shortest for way in _ways(line))
            self._hidden += [way for way in dict.fromkeys(shown) if way not in self._hidden]
        self._hidden.sort(key=len, reverse=True)  # one may be part of another
        self._long = [_begun(value) for value in self._hidden if len(value) > UNSURE]

    def __call__(self, text: str) -> str:
        if "gw_" in text:
            text = _KEY.sub(MARK, text)
        for begun in self._long:  # first: shorter ones may be part of it
            text = begun.sub(MARK, text)
        for value in self._hidden:
            text = text.replace(value, MARK)
        return text


def _begun(value: str) -> re.Pattern[str]:
    """A value, or so much of one that no cut leaves it out: then all that follows in its line is hidden."""
    return re.compile(f"{re.escape(value[:UNSURE])}(?:{re.escape(value[UNSURE:])}|[^\\n]*)")


# What this process has seen of any model's secrets, and its own key: for its log, where "true" must stay readable.
KNOWN = Redactor(shortest=(8, 8))
