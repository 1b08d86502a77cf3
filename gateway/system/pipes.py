"""A pipe for the output of a program.

asyncio would use a socketpair, over which the program could pass us open files.
"""

from __future__ import annotations

import asyncio
import os
from typing import Self


class Output:
    """A pipe that is open for the block `with Output() as output`.

    `theirs` is the program's end; `stream` closes it here.
    """

    def __init__(self) -> None:
        ours, self.theirs = os.pipe()
        self._ours = open(ours, "rb", buffering=0)  # noqa: SIM115  closed by `close`, or by the transport
        self._transport: asyncio.ReadTransport | None = None

    async def stream(self) -> asyncio.StreamReader:
        """Return a reader, after the program has its end.

        Our copy of that end is closed, or the stream would never end.
        """
        self._let_go()
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self._ours)
        return reader

    def close(self) -> None:
        """Stop reading, even if a hidden process keeps the other end open."""
        self._let_go()
        if self._transport is not None:
            self._transport.close()
        else:
            self._ours.close()

    def _let_go(self) -> None:
        theirs, self.theirs = self.theirs, -1
        if theirs >= 0:
            os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
