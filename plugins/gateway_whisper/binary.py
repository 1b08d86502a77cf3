"""Check the weights of CTranslate2 (`model.bin`) by their sizes: the library believes every number in the file.

    number of the format: u32 · name of the model: text · its revision, how many variables: u32
    each variable: name: text · how many dimensions: u8 · each of them: u32 · type: u8 · bytes: u32 · values
    how many other names: u32 · each of them: other name: text · name: text

A text is a u16 with its length, and its bytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from gateway import opened

FORMAT = 6  # of CTranslate2 2.0 and newer; the sizes in older formats are written otherwise
MOST = 100_000  # variables, and other names
DEEPEST = 16  # dimensions


def fault(file: Path) -> str | None:
    """Return what is wrong with the sizes in a file; None if they fit each other, or its format is another one."""
    try:
        with opened(file) as found:
            size = os.fstat(found.fileno()).st_size
            if _number(found, 4) != FORMAT:
                return None
            _text(found)
            _number(found, 4)
            for _ in range(_count(found, "variables")):
                _text(found)
                if (rank := _number(found, 1)) > DEEPEST:
                    raise ValueError(f"a variable has {rank} dimensions")
                found.seek(4 * rank + 1, os.SEEK_CUR)
                found.seek(_number(found, 4), os.SEEK_CUR)
            for _ in range(_count(found, "other names")):
                _text(found)
                _text(found)
            whole = found.tell()
    except EOFError:
        return f"ends in the middle, after {size:,} bytes"
    except (OSError, ValueError) as error:
        return f"is damaged ({error})"
    return None if whole == size else f"has {size:,} bytes, and its variables {whole:,}"


def _number(file: BinaryIO, size: int) -> int:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return int.from_bytes(data, "little")


def _count(file: BinaryIO, what: str) -> int:
    if (count := _number(file, 4)) > MOST:
        raise ValueError(f"it has {count:,} {what}")
    return count


def _text(file: BinaryIO) -> None:
    file.seek(_number(file, 2), os.SEEK_CUR)
