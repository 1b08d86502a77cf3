"""The C library for the sandbox; failed calls raise OSError."""

from __future__ import annotations

import ctypes
import errno
import os


def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def done(result: int) -> int:
    """Return the result of a call. Raises `OSError` if it failed."""
    if result < 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, os.strerror(number))
    return result
