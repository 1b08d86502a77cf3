"""What a program prints: a pipe. The loop's own would be a socket, over which the program could hand us open files."""

from __future__ import annotations

import asyncio
import os
from typing import Self


class Output:
    """Held for as long as it is read: `with Output() as output`. `theirs` is for the program, until `stream`."""

    def __init__(self) -> None:
        ours, self.theirs = os.pipe()
        self._ours = open(ours, "rb", buffering=0)  # noqa: SIM115  closed by `close`, or by the transport
        self._transport: asyncio.ReadTransport | None = None

    async def stream(self) -> asyncio.StreamReader:
        """What comes, once the program has its end: ours of that is closed, or the last line would have no end."""
        self._let_go()
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self._ours)
        return reader

    def close(self) -> None:
        """Read no more, though a process that hides may hold the other end open for ever."""
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
