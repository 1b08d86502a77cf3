"""Read and check the structure of a fastText file, without its numbers and without the library.

The library's reader believes every count in a file: one that is cut keeps it busy forever, and a wrong index, or no
buckets for n-grams, ends the process.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from gateway import ConfigError, check_ordinary, opened

MAGIC = 793712314
SUFFIXES = (".bin", ".ftz")
VERSIONS = (11, 12)
SUPERVISED = 3
LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}
HIERARCHICAL = 1
MOST_WORDS = 20_000_000
MOST_DIMENSIONS = 100_000
LONGEST_NGRAM = 1000  # letters or words
UNSET = 10**15  # the count of a node of the tree that has none yet, in the library
CENTROIDS = 256  # of each part of a quantized vector
BLOCK = 1 << 20
NEVER_PRUNED = -1


@dataclass(frozen=True, slots=True)
class Structure:
    is_classifier: bool
    dimensions: int
    words: int
    labels: int
    is_quantized: bool


def is_model(name: str, begin: bytes) -> bool:
    """Return whether a file may be of fastText, by its name and, if that is known, its beginning."""
    return name.endswith(SUFFIXES) and (not begin or begin.startswith(struct.pack("<i", MAGIC)))


def is_classifier(file: Path) -> bool:
    """Return whether a file has labels, as far as its beginning tells; `check_file` tells what is wrong with it."""
    try:
        with opened(file) as found:
            begin = found.read(40)
    except OSError:
        return True
    return len(begin) < 40 or struct.unpack_from("<i", begin, 36)[0] == SUPERVISED


def check_file(file: Path) -> Structure:
    """Return the structure of a file that can be loaded.

    Raises:
        ConfigError: it is damaged, and where.
    """
    check_ordinary(file)
    try:
        with opened(file) as found:
            return _Reader(found, file.stat().st_size).structure()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is not a model of fastText, or damaged ({error}): get it again") from error


class _Reader:
    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file, self._size, self._at = file, size, 0

    def structure(self) -> Structure:
        magic, version = self._numbers("ii")
        if magic != MAGIC:
            raise ValueError("it does not begin as one")
        if version not in VERSIONS:
            raise ValueError(f"it has version {version} of the format, and the library reads 11 and 12")
        names = "dim ws epoch min_count neg word_ngrams loss model bucket minn maxn update"
        args = dict(zip(names.split(), self._numbers("12i"), strict=True))
        self._numbers("d")
        is_classifier = args["model"] == SUPERVISED
        if version == 11 and is_classifier:
            args["maxn"] = 0
        _check_args(args)
        words, labels, pruned = self._dictionary()
        targets = labels if is_classifier else words
        if targets < 1:
            raise ValueError("it has no labels" if is_classifier else "it has no words")
        is_quantized = self._flag("quantized")
        if pruned != NEVER_PRUNED and not is_quantized:
            raise ValueError("it says that words were removed, but is not quantized")
        kept = args["bucket"] if pruned == NEVER_PRUNED else pruned
        self._matrix("of words", words + kept, args["dim"], quantized=is_quantized)
        self._matrix("of labels", targets, args["dim"], quantized=self._flag("quantized") and is_quantized)
        return Structure(is_classifier, args["dim"], words, labels, is_quantized)

    def _dictionary(self) -> tuple[int, int, int]:
        """Read the dictionary. Returns the words, the labels, and the n-grams that are kept, or `NEVER_PRUNED`."""
        size, words, labels = self._numbers("3i")
        _, pruned = self._numbers("qq")
        if size != words + labels or min(words, labels) < 0 or not 0 < size <= MOST_WORDS:
            raise ValueError(f"it has {size} entries, but {words} words and {labels} labels")
        total = 0
        for number, (count, kind) in enumerate(self._entries(size)):
            if kind != (number >= words):
                raise ValueError(f"entry {number} should be a {'label' if number >= words else 'word'}")
            if count < 0:
                raise ValueError(f"entry {number} occurred {count} times")
            total += count
        if total >= UNSET:
            raise ValueError(f"its entries occurred {total} times")
        if pruned < NEVER_PRUNED or pruned > MOST_WORDS:
            raise ValueError(f"it keeps {pruned} n-grams")
        for number in range(max(pruned, 0)):
            _, place = self._numbers("ii")
            if not 0 <= place < pruned:
                raise ValueError(f"n-gram {number} is at {place} of {pruned}")
        return words, labels, pruned

    def _entries(self, size: int) -> Any:
        """Yield count and kind of each entry, behind its text, which ends with a zero."""
        held, begin = b"", 0
        for number in range(size):
            while (end := held.find(b"\0", begin)) < 0 or len(held) < end + 10:
                more = self._file.read(BLOCK)
                if not more:
                    raise ValueError(f"it ends in entry {number} of {size}")
                held, begin = held[begin:] + more, 0
            yield struct.unpack_from("<qb", held, end + 1)
            begin = end + 10
        self._at = self._file.tell() - (len(held) - begin)
        self._file.seek(self._at)

    def _matrix(self, what: str, rows: int, columns: int, *, quantized: bool) -> None:
        if quantized:
            self._codes(what, rows, columns)
            return
        found = self._numbers("qq")
        if found != (rows, columns):
            raise ValueError(f"its matrix {what} has the shape {found}, and should have {(rows, columns)}")
        self._skip(rows * columns * 4, what)

    def _codes(self, what: str, rows: int, columns: int) -> None:
        has_norms = self._flag("of norms")
        found = self._numbers("qq")
        (codes,) = self._numbers("i")
        if found != (rows, columns):
            raise ValueError(f"its matrix {what} has the shape {found}, and should have {(rows, columns)}")
        self._skip(codes, what)
        parts = self._quantizer(what, columns)
        if codes != rows * parts:
            raise ValueError(f"its matrix {what} has {codes} codes, and should have {rows * parts}")
        if has_norms:
            self._skip(rows, what)
            if self._quantizer(f"{what}, of its norms,", 1) != 1:
                raise ValueError(f"its matrix {what} has norms of several parts")

    def _quantizer(self, what: str, columns: int) -> int:
        """Read the centroids of a matrix. Returns the parts of a vector."""
        dim, parts, width, last = self._numbers("4i")
        if dim != columns or not 0 < width <= dim or parts != -(-dim // width) or last != (dim % width or width):
            raise ValueError(f"its matrix {what} divides {columns} columns into {parts} parts of {width} and {last}")
        self._skip(dim * CENTROIDS * 4, what)
        return parts

    def _flag(self, what: str) -> bool:
        (found,) = self._numbers("B")
        if found > 1:
            raise ValueError(f"its flag {what} is {found}")
        return bool(found)

    def _numbers(self, form: str) -> tuple[Any, ...]:
        form = f"<{form}"
        data = self._file.read(struct.calcsize(form))
        if len(data) < struct.calcsize(form):
            raise ValueError("it is cut")
        self._at += len(data)
        return struct.unpack(form, data)

    def _skip(self, size: int, what: str) -> None:
        if size < 0 or self._at + size > self._size:
            raise ValueError(f"it is cut: its matrix {what} has {size} bytes, and {self._size - self._at} are left")
        self._at += size
        self._file.seek(self._at)


def _check_args(args: dict[str, int]) -> None:
    if not 0 < args["dim"] <= MOST_DIMENSIONS:
        raise ValueError(f"its vectors have {args['dim']} numbers")
    if args["loss"] not in LOSSES or not 1 <= args["model"] <= SUPERVISED:
        raise ValueError(f"it has the loss {args['loss']} and the model {args['model']}")
    if not 0 <= args["bucket"] <= MOST_WORDS:
        raise ValueError(f"it has {args['bucket']} buckets")
    if not 0 <= args["maxn"] <= LONGEST_NGRAM or not 0 <= args["word_ngrams"] <= LONGEST_NGRAM:
        raise ValueError(f"its n-grams have up to {args['maxn']} letters and {args['word_ngrams']} words")
    if args["bucket"] == 0 and (args["maxn"] > 0 or args["word_ngrams"] > 1):
        raise ValueError("it has n-grams, but no buckets for them")
