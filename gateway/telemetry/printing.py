"""Write to stdout and stderr even if their readers are slow or gone, which must not stop the program.

`print` keeps text that it could not write, and fails with it again at exit. `write` keeps nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing_extensions import Buffer

Name = Literal["stdout", "stderr"]


def write(text: str, name: Name = "stdout") -> None:
    """Write all of `text`, however long that takes: to the file descriptor, unless the stream was replaced.

    Raises:
        OSError: no reader, or the disk is full.
    """
    stream, shown = getattr(sys, f"__{name}__"), getattr(sys, name)
    if shown is None or shown is not stream:
        if shown is not None:
            shown.write(text)
            shown.flush()
        return
    descriptor, data = stream.fileno(), text.encode(stream.encoding, "backslashreplace")
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def try_to_write(text: str, name: Name = "stdout") -> None:
    """Write the text, and ignore errors."""
    with contextlib.suppress(OSError, ValueError):
        write(text, name)


def forgive() -> None:
    """Make `print` ignore write errors from now on, everywhere in this process, and also at the last flush."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue
        forgiving = io.TextIOWrapper(
            io.BufferedWriter(_Forgiving(descriptor, "w", closefd=False)),
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, forgiving)
        setattr(sys, f"__{name}__", forgiving)


class _Forgiving(io.FileIO):
    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError:
            return memoryview(data).nbytes
