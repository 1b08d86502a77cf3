"""Stop strings, applied by the gateway for models that do not do it: `[models.NAME] enforce_stop`."""

from __future__ import annotations

from collections.abc import Iterable


class StopCutter:
    """Cuts the text of one choice before the first stop string. The text may come in pieces of any size.

    The first stop string is the one that is complete first. Text that may be the start of one is held back, at most the
    longest stop string less one character.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Return the text that may be sent."""
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            _, at, self.found = min(found)
            self._held = ""
            return text[:at]
        kept = max(_begun(text, stop) for stop in self._stops)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """Return the held back text, after the last piece."""
        rest, self._held = self._held, ""
        return rest


def _begun(text: str, stop: str) -> int:
    """Return how many characters at the end of the text are the start of the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
