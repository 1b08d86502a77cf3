"""Values that must not be written anywhere, taken out of texts."""

from __future__ import annotations

from collections.abc import Iterable

MARK = "***"
SHORTEST = 4, 8  # characters of a secret that is looked for: whole, or a line of a longer one


class Redactor:
    """Takes the values that it was told out of texts. `shortest` as above: shorter ones would hide everything."""

    def __init__(self, values: Iterable[str] = (), shortest: tuple[int, int] = SHORTEST) -> None:
        self._shortest = shortest
        self._hidden: list[str] = []
        self.hide(values)

    def hide(self, values: Iterable[str]) -> None:
        """Show these as *** from now on, and those of before still."""
        for value in values:
            lines = [line.strip() for line in value.strip().splitlines()]  # a key is many lines, a file ends in a break
            shortest = self._shortest[len(lines) > 1]
            self._hidden += [line for line in lines if len(line) >= shortest and line not in self._hidden]
        self._hidden.sort(key=len, reverse=True)  # one may be part of another

    def __call__(self, text: str) -> str:
        for value in self._hidden:
            text = text.replace(value, MARK)
        return text


# What this process has seen of any model's secrets, and its own key: for its log, where "true" must stay readable.
KNOWN = Redactor(shortest=(8, 8))
