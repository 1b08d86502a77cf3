"""Sources of models, parsed within bounds: those that are dear to parse are left to the worker, which runs them.

The parser lets no other thread run meanwhile, not even that of the loop, so what it may be given is bounded beforehand.
Everything that parses what lies in a model directory asks here.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from itertools import islice

LARGEST = 256 * 1024  # characters of one source
TOKENS = 1 << 15  # of one source: a tree has a node for each, of hundreds of bytes, made in microseconds
MOST = 4 * TOKENS  # of all sources of one model
BRACES = 1 << 28  # of them, times the characters: the parts of one f-string take time by the square of their number
# Characters in a row that are not ASCII: the accents of one letter in a name are sorted by the square of their number.
ACCENTS = re.compile(r"[^\x00-\x7f]{512}")
TOKEN = re.compile(r"\w+|[^\w\s]|[\r\n]")
# Those in which as many characters are read as there are bytes, or fewer, and by no algorithm of their own.
ENCODINGS = frozenset(("utf-8", "utf-8-sig", "iso-8859-1"))


class Parser:
    """Parses the sources of one model, as long as all of them together have no more than `most` tokens."""

    def __init__(self, most: int = MOST) -> None:
        self._left = most

    @property
    def is_spent(self) -> bool:
        return self._left <= 0

    def parse(self, source: bytes | str) -> ast.Module | None:
        """The tree of a source; None when it is dear, or when those before it have used all that one model has.

        Raises:
            SyntaxError: it is no Python.
            ValueError: it is none either, in ways that the parser has no line for.
        """
        text = _decoded(source) if isinstance(source, bytes) else source
        if self.is_spent or text is None or _is_dear(text):
            return None
        tokens = sum(1 for _ in islice(TOKEN.finditer(text), TOKENS + 1))
        self._left -= tokens  # to count those of a source that is left takes time, too
        if tokens > TOKENS or self._left < 0:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes are the author's business, not stderr's
                return ast.parse(text)
        except (RecursionError, MemoryError) as error:  # thousands of nested brackets
            raise ValueError(str(error) or type(error).__name__) from error


def _is_dear(text: str) -> bool:
    return len(text) > LARGEST or len(text) * text.count("{") > BRACES or ACCENTS.search(text) is not None


def _decoded(source: bytes) -> str | None:
    """The text; None for encodings that few use, of which we do not know what they make of a few bytes."""
    encoding = tokenize.detect_encoding(io.BytesIO(source).readline)[0]
    return source.decode(encoding) if encoding in ENCODINGS else None
