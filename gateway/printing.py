"""Write to stdout and stderr, though their readers may be slow or gone: that must not end or change what goes on.

`print` keeps what it could not write and fails with it again at the end of the process. This keeps nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import Literal

Name = Literal["stdout", "stderr"]


def write(text: str, name: Name = "stdout") -> None:
    """All of it, however long that takes; to the descriptor itself, unless something has put itself in its place.

    Raises:
        OSError: nobody is there, or the disk is full.
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
    """Write it, or nothing where that fails."""
    with contextlib.suppress(OSError, ValueError):
        write(text, name)


def let_go() -> None:
    """At the end of a process: what is left in a stream that nobody reads must not change its exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
