"""Merge texts of many callers into passes through one network, of sentence-transformers or of llama.cpp."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from gateway_embedding_fields import Ask

from gateway import BadRequest, HTTPError

HOLD = 0.002  # seconds; about half of a pass's fixed cost on a CPU


@dataclass(frozen=True, slots=True)
class Shape:
    """The pass size through the network that is efficient on this kind of device."""

    budget: int  # tokens of one pass, padding included: larger passes are not faster per token
    overhead: int  # fixed cost of a pass, in tokens
    window: int  # texts considered when a pass is composed


class Encoder(Protocol):
    """An engine. What it tokenizes has `count` tokens, a `kind`, and a `limit` if it is longer and may not be cut."""

    def tokenize(self, texts: list[str], ask: Ask) -> Sequence[Any]: ...

    def encode(self, batch: list[Any]) -> Any: ...


@dataclass(slots=True, eq=False)
class Call:
    """The texts of one caller that are converted to vectors."""

    ask: Ask
    future: asyncio.Future[tuple[Any, int]]  # cancelled when the caller leaves
    vectors: list[Any]  # one per text; None until it is computed
    missing: int
    tokens: int = 0
    result: tuple[Any, int] | None = None
    error: Exception | None = None

    @property
    def is_over(self) -> bool:
        return self.error is not None or self.future.done()


@dataclass(slots=True, eq=False)
class Text:
    text: str
    call: Call
    index: int
    turn: int
    tokens: Any = None  # `Tokens`, once it is in a window

    @property
    def length(self) -> int:
        return max(1, self.tokens.count)


def choose_pass(window: Sequence[Text], shape: Shape) -> list[Text]:
    """Return the texts of the next pass: the first of the window, and those that are worth adding.

    The window is sorted by length and split into runs, longest first. A run ends at the budget, or where padding the
    texts that could still join costs more than a separate pass for them.
    """
    run: list[Text] = []
    by_length = sorted(window, key=attrgetter("length"), reverse=True)
    for place, text in enumerate(by_length):
        if run:
            longest = run[0].length
            joining = min(shape.budget // longest - len(run), len(by_length) - place)
            if joining <= 0 or (longest - text.length) * joining > shape.overhead:
                if window[0] in run:
                    break
                run = []
        run.append(text)
    return run


def _of_one_kind(window: Sequence[Text]) -> list[Text]:
    """Return the first text, and those that can share its pass."""
    return [text for text in window if text.tokens.kind == window[0].tokens.kind]


class Batcher:
    """Merges the texts of many callers into passes of one engine, on one thread.

    1. A text that arrives while the engine is idle is computed at once; others accumulate during a pass.
    2. Callers take turns text by text, so that a request of one text overtakes a request of a thousand.
    3. A pass contains the text whose turn it is and texts of its kind with similar lengths, see `choose_pass`.
    4. A pass that fails is repeated text by text: only the caller of the failing text gets the error.
    5. The texts of a caller that left are dropped, except those that are being computed.

    The batches of a class with `embeddings_batch` are not used here: they are filled in the order of arrival up to a
    sum of costs, so texts of different lengths would be padded to the longest. Passes are chosen from a window of texts
    with similar lengths, up to a padded size.
    """

    def __init__(self, engine: Encoder, shape: Shape) -> None:
        self.engine = engine
        self.shape = shape
        self.closed = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.inbox: SimpleQueue[tuple[Call, list[str]] | None] = SimpleQueue()
        # everything below belongs to the thread
        self.waiting: list[Text] = []  # in the order of their turns
        self.turn = 0  # turn of the last text
        self.finished: list[Call] = []
        self.hold_for, self.hold_until = 0, 0.0
        self.thread = threading.Thread(target=self._run, name="embeddings", daemon=True)
        self.thread.start()

    async def encode(self, texts: list[str], ask: Ask) -> tuple[Any, int]:
        """Return the vectors of these texts as one float32 array, and the number of their tokens."""
        self.loop = asyncio.get_running_loop()  # the same for all callers: a worker has one loop
        call = Call(ask, self.loop.create_future(), [None] * len(texts), len(texts))
        self.inbox.put((call, texts))
        if self.closed:  # checked after the put, so that the last read of the inbox cannot miss a call
            call.future.cancel()
            raise _closing()
        return await call.future

    def close(self) -> None:
        """Fail all waiting callers; return when the engine has stopped."""
        self.inbox.put(None)
        self.closed = True
        self.thread.join()

    def _run(self) -> None:
        try:
            while self._gather():
                if batch := self._next_pass():
                    self._attempt(self._encode, batch)
                self._deliver()
        finally:  # closed, or a bug in this file: callers must not wait for a dead thread
            self.closed = True
            while not self.inbox.empty():
                self._admit(self.inbox.get())
            for text in self.waiting:
                self._fail(text.call, _closing())
            self._deliver()

    def _gather(self) -> bool:
        """Take new arrivals, or wait for them if there is nothing to do; return False when it is time to stop.

        Callers often send the next request right after an answer, one by one, and the first of them would get a
        separate pass. So after a small pass, it waits up to HOLD until there are as many texts as in that pass.
        """
        while True:
            if not self.waiting:
                arrival = self.inbox.get()
            else:
                left = self.hold_until - time.monotonic() if len(self.waiting) < self.hold_for else 0.0
                try:
                    arrival = self.inbox.get(timeout=left) if left > 0 else self.inbox.get_nowait()
                except Empty:
                    return True
            if arrival is None:
                return False
            self._admit(arrival)

    def _admit(self, arrival: tuple[Call, list[str]] | None) -> None:
        if arrival is not None:
            call, texts = arrival
            self.waiting += [Text(text, call, index, self.turn + index) for index, text in enumerate(texts)]

    def _next_pass(self) -> list[Text]:
        self.waiting.sort(key=attrgetter("turn"))  # stable, and fast on nearly sorted lists
        size = self.shape.window
        window = [text for text in self.waiting[:size] if not text.call.is_over]
        if fresh := [text for text in window if text.tokens is None]:
            for ask in {text.call.ask: None for text in fresh}:
                self._attempt(self._tokenize, [text for text in fresh if text.call.ask == ask])
            window = [text for text in window if text.tokens is not None]
        batch = choose_pass(_of_one_kind(window), self.shape) if window else []
        chosen = set(batch)
        self.waiting[:size] = [text for text in window if text not in chosen]
        if batch:
            self.turn = window[0].turn
        return batch

    def _tokenize(self, texts: Sequence[Text]) -> None:
        found = self.engine.tokenize([text.text for text in texts], texts[0].call.ask)
        for text, tokens in zip(texts, found, strict=True):
            if tokens.limit is None:
                text.tokens = tokens
            else:
                self._fail(text.call, _too_long(text.index, tokens.limit))

    def _encode(self, batch: Sequence[Text]) -> None:
        import numpy

        vectors = self.engine.encode([text.tokens for text in batch])
        finite = numpy.isfinite(vectors).all(axis=1)
        for text, vector, is_finite in zip(batch, vectors, finite, strict=True):
            call = text.call
            if call.is_over:
                continue
            if not is_finite:
                self._fail(call, HTTPError(500, "the model computed NaN or infinity", code="invalid_model_output"))
                continue
            call.vectors[text.index] = vector
            call.tokens += text.tokens.count
            call.missing -= 1
            if not call.missing:
                call.result = numpy.stack(call.vectors), call.tokens
                self.finished.append(call)
        enough = self.shape.budget // 4  # tokens that make a pass worthwhile without more
        self.hold_for = min(len(batch), enough // max(text.length for text in batch))
        self.hold_until = time.monotonic() + HOLD

    def _attempt(self, work: Callable[[Sequence[Text]], None], texts: Sequence[Text]) -> None:
        try:
            work(texts)
        except Exception as error:
            if len(texts) == 1:
                self._fail(texts[0].call, error)
                return
            for text in texts:
                self._attempt(work, [text])

    def _fail(self, call: Call, error: Exception) -> None:
        if not call.is_over:
            call.error = error
            self.finished.append(call)

    def _deliver(self) -> None:
        """Wake the callers that are done, with one call into their loop."""
        finished, self.finished = self.finished, []
        if finished and self.loop is not None:
            try:
                self.loop.call_soon_threadsafe(_settle, finished)
            except RuntimeError:  # the loop is closed: no caller waits any more
                pass


def _settle(finished: Sequence[Call]) -> None:
    for call in finished:
        if call.future.done():  # its caller has left
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        elif call.result is not None:
            call.future.set_result(call.result)


def _closing() -> HTTPError:
    return HTTPError(503, "the model is being unloaded", code="shutting_down")


def _too_long(place: int, limit: int) -> BadRequest:
    """The first words are OpenAI's: clients recognise a too long text by them."""
    return BadRequest(
        f"This model's maximum context length is {limit} tokens. However, input[{place}] has more, counted with the "
        "model's prompt. Send a shorter text, or truncate_prompt_tokens: -1 to have it cut.",
        param="input",
        code="context_length_exceeded",
    )
