"""Token accounting: how many tokens a request used. It is settled once, when the request ends, for any reason.

If the model did not report its counts, it is asked to count: before the end of an answer that reports usage, and
otherwise after the answer, while no client waits. Tokens that cannot be counted are estimated and marked as estimates.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from ...dialects.base import Encoder, Used
from ...errors import GatewayError, ModelError
from ...runners.pending import ClientLeft
from ...wire.frames import MAX_PAYLOAD
from ...wire.values import decode, encode
from ..exchange import Exchange, spawn
from ..off_loop import AT_ONCE, Beside
from .token_counts import count_tokens, encoded

if TYPE_CHECKING:
    from ...access.permits import Permits
    from ...hosting.model import HostedModel
    from ...runners.call import Call
    from ...telemetry.histogram import Histogram
    from ..metrics.requests import Metrics, Tokens

Questions = dict[str, dict[str, Any]]
Inputs = Callable[[], list[dict[str, Any]]]
Settle = Callable[[], Awaitable[None]]  # awaited before the end of an answer that reports usage
MAX_LATER = 1 << 20  # maximum bytes counted, or read, after an answer
LAST = 4  # last pieces of a stream that may contain the model's counts
SLICE = 32 << 10  # bytes of events read before other tasks get their turn


def packed(inputs: list[dict[str, Any]], size: int, is_counted: bool) -> Inputs:
    """Return a function that returns the inputs, but holds them only as bytes until then.

    Inputs that are not counted, or are larger than what is counted after an answer, are empty: their tokens are
    estimated. A small request may continue a large conversation, so they are not held while the model answers it.
    """
    if is_counted and size <= MAX_LATER:
        return partial(decode, encode(inputs))
    nothing: list[dict[str, Any]] = [{} for _ in inputs]
    return lambda: nothing


class Accounts:
    """The accounts of one gateway."""

    def __init__(self, metrics: Metrics, beside: Beside) -> None:
        self.metrics, self.beside = metrics, beside
        self.counting: set[Permits | None] = set()  # callers with a count under way after an answer; None without keys


class Account:
    """The account of one request. It is a context manager, open from the start of the call.

    `inputs` returns the inputs of each call of the method, which have `size` bytes. `reader` makes an encoder like the
    answer's.
    """

    __slots__ = (
        "_accounts",
        "_asking",
        "_calls",
        "_exchange",
        "_inputs",
        "_is_counted",
        "_model",
        "_reader",
        "_size",
        "encoder",
        "failed",
        "first_at",
        "is_open",
        "is_streamed",
        "relayed",
    )

    def __init__(
        self,
        accounts: Accounts,
        exchange: Exchange,
        model: HostedModel,
        inputs: Inputs,
        reader: Callable[[], Encoder],
        size: int,
        calls: Sequence[Call],
    ) -> None:
        self._accounts, self._exchange, self._model = accounts, exchange, model
        self._inputs, self._reader, self._size, self._calls = inputs, reader, size, calls
        self.encoder = reader()  # what it has read so far is what counts
        self.failed = "abort"  # vLLM's word for how it ended; "" if it is complete
        self.first_at = 0.0  # when the first value of the model arrived
        self.is_open = True  # False: its tokens are unknown and are not counted
        self.is_streamed = False
        self.relayed: Relayed | None = None  # set if the encoder does not read what is sent to the client
        self._is_counted = False
        self._asking: asyncio.Task[None] | None = None  # counts the usage that the answer will report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self.is_open:
            return
        if isinstance(error, Exception) and not isinstance(error, ClientLeft):
            self.failed = "error"
        exchange, counting = self._exchange, self._accounts.counting
        if not self._was_used(error):
            if self.encoder.has_usage:
                _finish(self._accounts.metrics.tokens(exchange.counted_for), self.failed)
            return
        self.end_call()
        if self._is_counted:
            self._book()
            return
        may_ask = self._model.counts_tokens and exchange.permits not in counting
        if self._asking is not None and not may_ask:
            self._asking.cancel()
        asked: Questions | None = None  # not known yet
        if not may_ask:
            asked = {}
        elif self.relayed is None and self.size <= AT_ONCE:
            asked = self.encoder.uncounted(self._inputs())
        if asked or asked is None or self.relayed is not None:
            if may_ask:
                counting.add(exchange.permits)
            exchange.counting = spawn(self._settle_later(asked, may_ask))
        else:
            self._book()

    @property
    def size(self) -> int:
        """The bytes of the request and of the answer so far."""
        return self._size + sum([call.taken for call in self._calls])

    def end_call(self) -> None:
        """Record that the model has finished."""
        if not self._exchange.ended:
            self._exchange.end_call()

    @property
    def between(self) -> Histogram:
        """The histogram of vLLM's times between tokens of the model."""
        return self._accounts.metrics.tokens(self._exchange.counted_for).between

    def relay(self) -> Relayed:
        """Return the object that collects events sent as the model framed them."""
        self.relayed = Relayed(self._reader, self._accounts.beside)
        return self.relayed

    async def count(self) -> None:
        """Count tokens that the answer will report and that the model did not count itself."""
        self.end_call()
        if self._model.counts_tokens and (asked := await self._questions(self.encoder)):
            began, self._asking = time.monotonic(), spawn(self._ask(asked, MAX_PAYLOAD))
            try:
                await self._exchange.stay(self._asking)
            finally:
                self._exchange.count = time.monotonic() - began
        self._is_counted = True

    async def _questions(self, encoder: Encoder) -> Questions:
        """Return the questions for what the model did not count, which may convert the whole request and answer."""
        return await self._accounts.beside.do(None, self.size, lambda: encoder.uncounted(self._inputs()))

    async def _settle_later(self, asked: Questions | None, may_ask: bool) -> None:
        """Settle the account after the answer.

        This counts against no limit of the caller. So each caller has one count at a time, of bounded size; other
        counts are estimated.
        """
        try:
            if self.relayed is not None:
                self.encoder = await self.relayed.read(self._questions)
                asked = await self._questions(self.encoder) if may_ask else {}
            if self._asking is not None:  # its client left before it was done
                await self._asking
                return
            if asked is None:
                asked = await self._questions(self.encoder)
            if asked:
                await self._ask(asked, MAX_LATER)
        finally:
            if may_ask:
                self._accounts.counting.discard(self._exchange.permits)
            self._book()

    async def _ask(self, asked: Questions, most: int) -> None:
        work = partial(encoded, asked, most)
        numbers = await count_tokens(
            self._model, self._accounts.beside.do(None, self.size, work), self._exchange.request_id
        )
        if numbers is not None:
            self.encoder.counted(numbers)

    def _was_used(self, error: BaseException | None) -> bool:
        """Whether the model used the prompt: not if the call stayed queued, or was refused by the model without
        output.
        """
        if isinstance(error, ModelError) and error.status < 500 and not self._has_said():
            return False
        if self.first_at:
            return True
        self._exchange.measure()
        return self._exchange.has_run

    def _has_said(self) -> bool:
        """Whether the model returned more than an error. An error may also come as a value."""
        if self.relayed is not None:
            return True
        told = self.encoder.usage() if self.first_at else None
        return told is not None and told.completion > 0

    def _book(self) -> None:
        """Record the tokens in the metrics, including those with vLLM's names.

        An answer that was not streamed may have come all at once: it has a time to the first token, but no time between
        tokens.
        """
        told = self.encoder.usage()
        if told is None:
            return
        used, exchange, metrics = Used(*told), self._exchange, self._accounts.metrics
        metrics.spent(exchange, used)
        tokens = metrics.tokens(exchange.counted_for)
        tokens.counting += exchange.count
        total = exchange.ended - exchange.started
        tokens.e2e.add(total)
        tokens.queue.add(exchange.queued)
        tokens.run.add(max(0.0, total - exchange.queued))
        if self.first_at and (self.is_streamed or used.completion):
            first = self.first_at - exchange.started
            tokens.first.add(first)
            if self.is_streamed and used.completion > 1:
                tokens.per_token.add((total - first) / (used.completion - 1))
        tokens.prompt.add(used.prompt)
        tokens.generation.add(used.completion)
        _finish(tokens, self.failed or _WORDS.get(used.reason, used.reason))


_WORDS = {"tool_calls": "stop", "function_call": "stop", "content_filter": "stop"}  # OpenAI's → vLLM's


def _finish(tokens: Tokens, reason: str) -> None:
    tokens.finished[reason] = tokens.finished.get(reason, 0) + 1


class Relayed:
    """Events sent as the model framed them, kept until their tokens are counted.

    Beyond `MAX_LATER` bytes only the end is kept, where models report their counts.
    """

    __slots__ = ("_beside", "_first", "_last", "_reader", "_size")

    def __init__(self, reader: Callable[[], Encoder], beside: Beside) -> None:
        self._reader, self._beside = reader, beside
        self._first: list[bytes] = []
        self._last: deque[bytes] = deque(maxlen=LAST)
        self._size = 0  # bytes of all events

    def add(self, events: bytes) -> None:
        """Add some whole events."""
        size = len(events)
        self._size += size
        if self._size <= MAX_LATER:
            self._first.append(events)
        elif size <= MAX_LATER:
            self._last.append(events)

    async def read(self, questions: Callable[[Encoder], Awaitable[Questions]]) -> Encoder:
        """Return an encoder that has read the events; only the last ones if they contain the counts."""
        pieces = [*self._first, *self._last]
        encoder = self._reader()
        for events in pieces[-LAST:]:
            await self._beside.do(None, len(events), partial(_read, encoder, events))
        if not await questions(encoder):
            return encoder
        encoder, since = self._reader(), 0
        for events in pieces:
            await self._beside.do(None, len(events), partial(_read, encoder, events))
            since += len(events)
            if since > SLICE:
                since = 0
                await asyncio.sleep(0)
        encoder.scale = self._size / sum(map(len, pieces)) if pieces else 1.0
        return encoder


def _read(encoder: Encoder, events: bytes) -> None:
    """Feed events to the encoder. Errors are ignored here: another part reports them to the client."""
    with contextlib.suppress(GatewayError):
        encoder.feed([events])
