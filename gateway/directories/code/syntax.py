"""Parse sources of models within bounds. A source that is expensive to parse is left to the worker, which runs it.

The parser holds the GIL, so it blocks the event loop too; therefore its input is limited first. All code that parses
files of a model directory uses this module.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from itertools import islice

LARGEST = 256 * 1024  # characters of one source
TOKENS = 1 << 15  # in one source: the tree has a node for each, which takes hundreds of bytes and microseconds
MOST = 4 * TOKENS  # in all sources of one model
BRACES = 1 << 28  # braces times characters: the time for the parts of one f-string grows quadratically
# Consecutive non-ASCII characters: accents on one letter of a name are sorted in quadratic time.
ACCENTS = re.compile(r"[^\x00-\x7f]{512}")
TOKEN = re.compile(r"\w+|[^\w\s]|[\r\n]")
# Encodings that produce at most one character per byte and need no special algorithm.
ENCODINGS = frozenset(("utf-8", "utf-8-sig", "iso-8859-1"))


class Parser:
    """Parses the sources of one model until they exceed `most` tokens together."""

    def __init__(self, most: int = MOST) -> None:
        self._left = most

    @property
    def is_spent(self) -> bool:
        return self._left <= 0

    def parse(self, source: bytes | str) -> ast.Module | None:
        """Return the tree of a source; None if it is too expensive, or if the model's token limit is used up.

        Raises:
            SyntaxError: it is not valid Python.
            ValueError: it is not valid Python, and the parser reports no line.
        """
        text = _decoded(source) if isinstance(source, bytes) else source
        if self.is_spent or text is None or _is_dear(text):
            return None
        tokens = sum(1 for _ in islice(TOKEN.finditer(text), TOKENS + 1))
        self._left -= tokens  # counting tokens of a rejected source takes time, too
        if tokens > TOKENS or self._left < 0:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes are the author's concern
                return ast.parse(text)
        except (RecursionError, MemoryError) as error:  # thousands of nested brackets
            raise ValueError(str(error) or type(error).__name__) from error


def _is_dear(text: str) -> bool:
    return len(text) > LARGEST or len(text) * text.count("{") > BRACES or ACCENTS.search(text) is not None


def _decoded(source: bytes) -> str | None:
    """Return the text; None for rare encodings, which may expand a few bytes to a long text."""
    encoding = tokenize.detect_encoding(io.BytesIO(source).readline)[0]
    return source.decode(encoding) if encoding in ENCODINGS else None
