"""A page that the gateway and a worker share: the id of the call that has begun last.

The worker writes it before any code of a call runs. When a worker is lost, the gateway can so tell calls that it had
sent ahead from calls that had begun, of which some frames may be lost.
"""

from __future__ import annotations

import fcntl
import mmap
import os

_SIZE = mmap.PAGESIZE
_FIXED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Begun:
    """One end of the page. `descriptor` is its file, for the other end: open until the worker has it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._page = mmap.mmap(descriptor, _SIZE)
        self._ids = memoryview(self._page).cast("I")
        self._last = 0  # of a page that is closed

    @classmethod
    def new(cls) -> Begun:
        """Create a page. Its size is sealed: to read a page that a worker had cut off would kill the gateway."""
        descriptor = os.memfd_create("begun", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, _SIZE)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _FIXED)
        return cls(descriptor)

    def mark(self, call: int) -> None:
        """Note that a call begins."""
        self._ids[0] = call

    @property
    def last(self) -> int:
        """The call that has begun last; 0 before the first."""
        return self._last if self._page.closed else self._ids[0]

    def close_file(self) -> None:
        """Close the descriptor; the page stays."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def close_page(self) -> None:
        """Close the page; its mmap held a descriptor of its own."""
        if not self._page.closed:
            self._last = self._ids[0]
            self._ids.release()
            self._page.close()
