"""An engine over llama.cpp: tokens of a prompt in, tokens of an answer out. Text and HTTP are the plugin's.

A request is one or more turns: calls of llama.cpp's server, each of which continues the prompt and the answer so far. A
new turn begins where the rules for the next token change (after a forced beginning or a minimum length, at a forbidden
text), after an end token that does not end this answer, and when a request had to give up its cells. What a turn
continues is usually in the cache, so it costs one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from gateway_language.engines import EngineFailed
from gateway_language.sampling import Record, Sampling

from .cells import Cells, Place
from .pieces import Pieces
from .request import Request
from .turns import Turn


class Engine:
    """Runs up to `slots` requests at a time on a server of llama.cpp."""

    def __init__(self, server: Any, pieces: Pieces, *, slots: int, cells: int, length: int) -> None:
        """`length` is the maximum tokens of one request, `cells` those of all requests that run at a time."""
        self.server = server
        self.length = length
        self.cells = Cells(cells)
        self._pieces = pieces
        self._turns: set[Turn] = set()
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="llama")  # a call blocks its thread until its end

    @property
    def is_alive(self) -> bool:
        return self.server is not None

    async def generate(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        stop_ids: frozenset[int],
        settings: Sampling,
        record: Record | None = None,
        priority: int = 0,
    ) -> AsyncIterator[list[int]]:
        """Yield the answer's tokens as they are generated; the last one may be one of `stop_ids`. Fills `record`.

        Closing the iterator ends the request within a step. If requests wait for cells, those with a lower `priority`
        are first. Raises `EngineFailed`.
        """
        if not prompt or max_tokens < 1 or len(prompt) + max_tokens > self.length:
            raise ValueError(f"{len(prompt)} + {max_tokens} tokens do not fit into {self.length}")
        request = Request(prompt, max_tokens, stop_ids, settings, record or Record())
        while not request.is_over:
            if (token := request.forced()) is not None:
                request.add(token)
                yield [token]
                continue
            before = len(request.answer)
            async with self.cells.hold(len(request.tokens), priority) as place:
                turn = self._turn(request, place)
                async with aclosing(turn):
                    async for tokens in turn:
                        yield tokens
            if len(request.answer) == before and not request.goes_on and not place.is_lost:
                return  # the context is full

    def stop(self) -> None:
        """End all requests, and the server after its current step."""
        server, self.server = self.server, None
        for turn in tuple(self._turns):
            turn.cancelled = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        del server

    async def _turn(self, request: Request, place: Place) -> AsyncIterator[list[int]]:
        """Yield what one call of the server adds to the answer."""
        if self.server is None:
            raise EngineFailed("the engine was stopped")
        loop = asyncio.get_running_loop()
        rules = request.rules()
        turn = Turn(loop, self._pieces, rules)
        place.evict = turn.cancel
        self._turns.add(turn)
        body = rules.request(request.tokens, self.length)
        call = loop.run_in_executor(self._pool, self.server.handle_completions, body, turn)
        call.add_done_callback(turn.ended)
        try:
            async for found in turn:
                if not request.answer:
                    request.record.cached = min(turn.cached, len(request.prompt) - 1)
                if tokens := request.take(found):
                    yield tokens
                if request.is_barred:
                    turn.cancelled = True
                    # Otherwise the next turn would not find its tokens in the cache, which this one still holds.
                    # llama.cpp would compute them again, all at once: rounded differently, so no seed would repeat.
                    await asyncio.wait([call])
                if request.is_over or request.is_barred:
                    return
                place.grow(len(found))
            request.unnamed = turn.unnamed
        finally:
            turn.cancelled = True
            self._turns.discard(turn)
        if self.server is None:
            raise EngineFailed("the engine was stopped")
        if turn.is_over and (error := call.exception()) is not None:
            raise EngineFailed(f"llama.cpp failed: {error}") from error
        if turn.failure:
            raise EngineFailed(f"llama.cpp failed: {turn.failure}")
