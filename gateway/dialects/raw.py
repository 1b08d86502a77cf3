"""Server-sent events that a Model frames itself: they go out as they are, in whole events, with a terminator."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidOutput

RAW_STARTS = ("data:", "event:")
MAX_HELD = 1 << 20  # bytes of an event without an end; more of it goes out torn


def starts_raw(items: list[Any]) -> bool:
    """Whether the first text among these first items of a stream is SSE."""
    first = next((item for item in items if item is not None and item not in ("", b"")), None)
    if isinstance(first, bytes):
        return first.startswith(tuple(start.encode() for start in RAW_STARTS))
    return isinstance(first, str) and first.startswith(RAW_STARTS)


class RawStream:
    """The bytes of one such stream. `terminator` is the data of the dialect's last event; b"" when it has none."""

    def __init__(self, terminator: bytes) -> None:
        self._terminator = terminator
        self._held = b""  # the beginning of an event
        self._last = b""  # the last line that was not blank

    def feed(self, items: list[Any]) -> bytes:
        """The events that are complete by now; a write never tears one.

        Raises:
            InvalidOutput: an item is neither text nor bytes.
        """
        text = self._held + b"".join([_bytes(item) for item in items])
        end = max(text.rfind(blank) + len(blank) if blank in text else 0 for blank in (b"\n\n", b"\r\n\r\n"))
        if not end and len(text) > MAX_HELD:
            end = len(text)
        self._held = text[end:]
        lines = [line for line in text[:end].splitlines() if line]
        self._last = lines[-1] if lines else self._last
        return text[:end]

    def finish(self) -> bytes:
        """What is left, and the terminator unless the model sent it."""
        rest = self.feed([b"\n\n"]) if self._held else b""
        sent = self._last.startswith(b"data:") and self._last[5:].strip() == self._terminator
        if not self._terminator or sent:
            return rest
        return rest + b"data: " + self._terminator + b"\n\n"


def _bytes(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode()
    if item is None:
        return b""
    raise InvalidOutput(f"the model yielded a {type(item).__name__} within SSE that it frames itself")
