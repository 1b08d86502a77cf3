"""The account of a request: how many tokens it was, settled once, when it is over, however it ended.

The model counts what it did not say itself, if it can: before the end of an answer that tells its usage, and behind
every other end, where nobody waits for it. What nobody counted is estimated, and marked as that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from ..call import ClientLeft
from ..dialects.base import Encoder, Used
from ..errors import GatewayError, ModelError
from ..questions import count_tokens
from ..wire import MAX_PAYLOAD
from .exchange import Exchange, spawn

if TYPE_CHECKING:
    from ..access import Permits
    from ..histogram import Histogram
    from ..hosted import HostedModel
    from .metrics import Metrics, Tokens

Questions = dict[str, dict[str, Any]]
MAX_LATER = 1 << 20  # bytes that are counted behind an answer, or read there
LAST = 4  # pieces of a stream among which the counts are that its model says: the end may come in pieces of its own
SLICE = 32 << 10  # bytes of events that are read before others have their turn


class Accounts:
    """Those of one gateway."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.counting: set[Permits | None] = set()  # whose tokens are counted behind an answer; None without keys


class Account:
    """That of one request, open from when its model was asked until its block is left.

    `inputs` is what each call of the method was given, `reader` makes an encoder as the answer has one.
    """

    __slots__ = (
        "_accounts",
        "_asking",
        "_exchange",
        "_inputs",
        "_is_counted",
        "_model",
        "_reader",
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
        inputs: list[dict[str, Any]],
        reader: Callable[[], Encoder],
    ) -> None:
        self._accounts, self._exchange, self._model = accounts, exchange, model
        self._inputs, self._reader = inputs, reader
        self.encoder = reader()  # what it has read by now is what counts
        self.failed = "abort"  # vLLM's word for how it ended; "" when it is whole
        self.first_at = 0.0  # when the first value of the model was here
        self.is_open = True  # False: its tokens are not known, and not looked for
        self.is_streamed = False
        self.relayed: Relayed | None = None  # where the encoder does not read what the client gets
        self._is_counted = False
        self._asking: asyncio.Task[None] | None = None  # for what the answer is about to tell

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
                _finish(self._accounts.metrics.tokens(exchange.model), self.failed)
            return
        self.end_call()
        if self._is_counted:
            self._book()
            return
        may_ask = self._model.counts_tokens and exchange.permits not in counting
        if self._asking is not None and not may_ask:
            self._asking.cancel()
        asked = self.encoder.uncounted(self._inputs) if may_ask and self.relayed is None else {}
        if asked or self.relayed is not None:
            if may_ask:
                counting.add(exchange.permits)
            exchange.counting = spawn(self._settle_later(asked, may_ask))
        else:
            self._book()

    def end_call(self) -> None:
        """The model has said all that it says."""
        if not self._exchange.ended:
            self._exchange.end_call()

    @property
    def between(self) -> Histogram:
        """vLLM's times between tokens, of the model."""
        return self._accounts.metrics.tokens(self._exchange.model).between

    def relay(self) -> Relayed:
        """What takes the events that go out as the model gave them."""
        self.relayed = Relayed(self._reader)
        return self.relayed

    async def count(self) -> None:
        """Have the tokens counted that the answer is about to tell of, and that the model did not count itself."""
        self.end_call()
        if self._model.counts_tokens and (asked := self.encoder.uncounted(self._inputs)):
            began, self._asking = time.monotonic(), spawn(self._ask(asked, MAX_PAYLOAD))
            try:
                await self._exchange.stay(self._asking)
            finally:
                self._exchange.count = time.monotonic() - began
        self._is_counted = True

    async def _settle_later(self, asked: Questions, may_ask: bool) -> None:
        """Settle what nobody waits for.

        That counts for no limit of the caller, who therefore has one question at a time, of a bounded size; all else
        is estimated.
        """
        try:
            if self.relayed is not None:
                self.encoder = await self.relayed.read(self._inputs)
                asked = self.encoder.uncounted(self._inputs) if may_ask else {}
            if self._asking is not None:  # its client did not stay for the end of that
                await self._asking
            elif asked:
                await self._ask(asked, MAX_LATER)
        finally:
            if may_ask:
                self._accounts.counting.discard(self._exchange.permits)
            self._book()

    async def _ask(self, asked: Questions, most: int) -> None:
        numbers = await count_tokens(self._model, asked, self._exchange.request_id, most)
        if numbers is not None:
            self.encoder.counted(numbers)

    def _was_used(self, error: BaseException | None) -> bool:
        """Whether the model had the prompt: not in a queue, nor where it refused the request and said nothing else."""
        if isinstance(error, ModelError) and error.status < 500 and not self._has_said():
            return False
        if self.first_at:
            return True
        self._exchange.measure()
        return self._exchange.has_run

    def _has_said(self) -> bool:
        """Whether the model gave more than an error: one may come as a value, too."""
        if self.relayed is not None:
            return True
        told = self.encoder.usage() if self.first_at else None
        return told is not None and told.completion > 0

    def _book(self) -> None:
        """Tell the metrics, vLLM's family among them. What was not streamed may have come all at once, so it has a
        first token, but no time between tokens."""
        told = self.encoder.usage()
        if told is None:
            return
        used, exchange, metrics = Used(*told), self._exchange, self._accounts.metrics
        metrics.spent(exchange, used)
        tokens = metrics.tokens(exchange.model)
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
    """Events that went out as the model gave them, kept until their tokens are known.

    Of what is beyond `MAX_LATER` bytes only the end is kept, where models say their counts.
    """

    __slots__ = ("_first", "_last", "_reader", "_size")

    def __init__(self, reader: Callable[[], Encoder]) -> None:
        self._reader = reader
        self._first: list[bytes] = []
        self._last: deque[bytes] = deque(maxlen=LAST)
        self._size = 0  # bytes of all

    def add(self, events: bytes) -> None:
        """Some whole events."""
        size = len(events)
        self._size += size
        if self._size <= MAX_LATER:
            self._first.append(events)
        elif size <= MAX_LATER:
            self._last.append(events)

    async def read(self, inputs: list[dict[str, Any]]) -> Encoder:
        """An encoder that knows what the events say: of their end alone where that has the counts."""
        pieces = [*self._first, *self._last]
        encoder = self._reader()
        for events in pieces[-LAST:]:
            _read(encoder, events)
        if not encoder.uncounted(inputs):
            return encoder
        encoder, since = self._reader(), 0
        for events in pieces:
            _read(encoder, events)
            since += len(events)
            if since > SLICE:
                since = 0
                await asyncio.sleep(0)
        encoder.scale = self._size / sum(map(len, pieces)) if pieces else 1.0
        return encoder


def _read(encoder: Encoder, events: bytes) -> None:
    """What makes no sense, or what an end without its beginning means, is left to those who say so to the client."""
    with contextlib.suppress(GatewayError):
        encoder.feed([events])
