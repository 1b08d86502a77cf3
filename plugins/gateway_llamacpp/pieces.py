"""The tokens of characters that llama.cpp sends as a whole.

It holds back the text of an incomplete character, and does not say which tokens began it: only how many, and the one
that completed it. Their bytes are known, so they are found by them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

LOST = "\ufffd".encode()
LONGEST = 8  # bytes of a token that may begin a character, with a blank or so before it


class Pieces:
    """`bytes_of` returns the bytes of a token; there are `count` tokens."""

    def __init__(self, bytes_of: Callable[[int], bytes], count: int) -> None:
        self.bytes_of, self.count = bytes_of, count

    def missing(self, text: str, last: int, count: int) -> list[int]:
        """Return `count` tokens that precede the token `last` in a piece of text.

        Several may be possible: then those with the most bytes first. If the bytes were no character, llama.cpp wrote
        something else for them; then the tokens are those of other bytes that are none either.
        """
        if not count:
            return []
        written, end = text.encode(), self.bytes_of(last)
        found = self._split(written.removesuffix(end), count) if end and written.endswith(end) else None
        return [self.none] * count if found is None else found

    def _split(self, written: bytes, count: int) -> list[int] | None:
        if count == 0:
            return [] if not written else None
        for size in range(min(len(written), LONGEST), 0, -1):
            if (token := self._tokens.get(written[:size])) is not None:
                rest = self._split(written[size:], count - 1)
                if rest is not None:
                    return [token, *rest]
        return None

    @cached_property
    def _tokens(self) -> dict[bytes, int]:
        """Tokens by their bytes, the first of each."""
        known: dict[bytes, int] = {}
        for token in range(self.count):
            known.setdefault(self.bytes_of(token), token)
        return known

    @cached_property
    def none(self) -> int:
        """A token that is no character by itself."""
        return next((self._tokens[byte] for byte in (b"\x80", b"\xbf", LOST) if byte in self._tokens), 0)
