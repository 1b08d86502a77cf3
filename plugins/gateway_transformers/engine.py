"""A batching engine for the causal language models of transformers.

One thread runs one forward pass per step: every running request gets its next token, and new prompts are read in pieces
at the same time. Each request owns a row of a fixed-size cache, so nothing is preempted. A free row that already holds
the beginning of a new prompt is reused. The engine only knows token ids; text and HTTP are the plugin's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import insort
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import torch
from gateway_language.engines import EngineFailed
from gateway_language.sampling import Record, Sampling
from torch import Tensor

from . import attention, sampling
from .adoption import adopt

FAILED_STEPS = 3  # consecutive failures after which the engine gives up and the model is unhealthy
SCORED = 128  # prompt tokens whose logits one step keeps: 77 MB with a vocabulary of 150,000
LOST_WORTH = 8  # this many cached tokens of another conversation count as much as one reusable token

log = logging.getLogger(__name__)


class Request:
    """One prompt and its answer. `inbox` and later attributes belong to the caller's loop, the others to the engine."""

    def __init__(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        stop_ids: frozenset[int],
        settings: Sampling,
        record: Record | None = None,
        priority: int = 0,
    ) -> None:
        self.record = record or Record()
        self.priority = priority
        self.tokens = list(prompt)
        self.prompt_length = len(prompt)
        self.length = len(prompt) + max_tokens  # maximum length
        self.stop_ids = stop_ids
        self.settings = settings
        self.generator = sampling.generator(settings)
        self.slot = -1
        self.cached = 0  # number of `tokens` whose keys and values are in the slot
        self.cancelled = False  # set on the loop, read by the engine
        self.inbox: list[int] = []
        self.ended = False
        self.failure: Exception | None = None
        self.woken = asyncio.Event()

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.cached

    @property
    def is_complete(self) -> bool:
        """Return whether nothing may follow, by the grammar of the answer."""
        return self.settings.guide is not None and self.settings.guide.is_over

    @property
    def read_at_once(self) -> int:
        """Return the maximum size of a prompt piece: with logits for each token, memory is the limit."""
        return SCORED if self.settings.prompt_logprobs else len(self.tokens)

    def choose(self, logits: Tensor) -> int:
        prompt, answer = self.tokens[: self.prompt_length], self.tokens[self.prompt_length :]
        return sampling.draw(logits, self.settings, self.generator, prompt, answer, self.stop_ids)

    def score_prompt(self, logits: Tensor) -> None:
        """Record scores from the logits of the piece that was just read: [tokens, vocabulary]."""
        start = self.cached - len(logits) + 1
        for row, token in zip(logits, self.tokens[start : self.prompt_length], strict=False):
            self.record.prompt.append(sampling.score(row, token, self.settings.logprobs or 0))

    def score(self, logits: Tensor, token: int) -> None:
        if self.settings.logprobs is not None:
            self.record.answer.append(sampling.score(logits, token, self.settings.logprobs))

    def deliver(self, token: int | None, ended: bool, failure: Exception | None) -> None:
        if token is not None:
            self.inbox.append(token)
        self.ended, self.failure = ended, failure
        self.woken.set()


def by_priority(request: Request) -> int:
    return request.priority


class Engine:
    """Runs up to `slots` requests at a time on a model."""

    def __init__(self, model: Any, *, slots: int, length: int, memory: int, step_tokens: int) -> None:
        """`length` is the maximum tokens of one request, `memory` the bytes that the cache may take.

        `step_tokens` is the number of prompt tokens per step: more is faster, fewer keeps running answers fluent.
        Raises `UnsupportedModel` if the model does not work with our cache.
        """
        self.model = model
        self.step_tokens = step_tokens
        per_token = adopt(model)
        self.length = min(length, memory // (slots * per_token))
        self.cache_bytes = self.length * slots * per_token
        self.cache = attention.Cache(slots, self.length)
        self.free: dict[int, list[int]] = {slot: [] for slot in range(slots)}  # and the tokens cached in them
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # by priority, then oldest first
        self.failed_steps = 0
        self.failure: Exception | None = None  # why there will be no further step
        self.stopping = False
        self.changed = threading.Condition()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.thread.start()

    @property
    def is_alive(self) -> bool:
        return self.failure is None and self.thread.is_alive()

    async def generate(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        stop_ids: frozenset[int],
        settings: Sampling,
        record: Record | None = None,
        priority: int = 0,
    ) -> AsyncIterator[list[int]]:
        """Yield the answer's tokens, one list per step; the last token may be one of `stop_ids`. Fills `record`.

        Prompts with a lower `priority` are read first. Closing the iterator removes the request before the next step.
        """
        if not prompt or max_tokens < 1 or len(prompt) + max_tokens > self.length:
            raise ValueError(f"{len(prompt)} + {max_tokens} tokens do not fit into {self.length}")
        request = Request(prompt, max_tokens, stop_ids, settings, record, priority)
        self.loop = asyncio.get_running_loop()
        with self.changed:
            if self.failure is not None:
                raise EngineFailed("the engine has ended") from self.failure
            insort(self.waiting, request, key=by_priority)
            self.changed.notify()
        try:
            while request.inbox or not request.ended:
                await request.woken.wait()
                request.woken.clear()
                tokens, request.inbox = request.inbox, []
                if tokens:
                    yield tokens
        finally:
            request.cancelled = True
        if isinstance(request.failure, torch.OutOfMemoryError):
            raise torch.OutOfMemoryError(str(request.failure)) from request.failure
        if request.failure is not None:
            raise EngineFailed(f"the model failed while it generated: {request.failure}") from request.failure

    def stop(self) -> None:
        """End the thread after its current step; running requests fail."""
        with self.changed:
            self.stopping = True
            self.changed.notify()
        self.thread.join()

    # ── on the engine's thread ───────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        failure: Exception = EngineFailed("the engine was stopped")
        try:
            with torch.inference_mode():
                while self._wait():
                    self._try_step()
        except BaseException as error:
            log.exception("the engine's thread ended")
            failure = EngineFailed(repr(error))
        with self.changed:
            self.failure = self.failure or failure
        self._fail(self.failure)

    def _wait(self) -> bool:
        """Remove cancelled requests, admit new ones, wait while there are none. Return False at the end."""
        with self.changed:
            while not self.stopping and self.failure is None:
                for request in [request for request in self.running if request.cancelled]:
                    self._release(request)
                while self.waiting and self.free:
                    if not (request := self.waiting.popleft()).cancelled:
                        self._admit(request)
                if self.running:
                    return True
                self.changed.wait()
        return False

    def _try_step(self) -> None:
        try:
            self._deliver(self._step())
        except Exception as error:
            log.exception("a step of the engine failed")
            self.failed_steps += 1
            if self.failed_steps >= FAILED_STEPS:
                self.failure = error
            self._fail(error)
        else:
            self.failed_steps = 0

    def _step(self) -> list[tuple[Request, int | None, bool]]:
        """Run one forward pass; return the requests that got a token, the token, and whether it was their last."""
        batch, readers, scored = self._plan()
        logits = attention.forward(self.model, batch)
        for request, rows in scored:
            request.score_prompt(logits[rows])
        logits = logits[[row for _, row in readers]] if scored else logits
        tokens = logits.argmax(-1).tolist()
        for row, (request, _) in enumerate(readers):
            if not request.settings.is_greedy:
                tokens[row] = request.choose(logits[row])
            request.score(logits[row], tokens[row])
        # Nothing may fail from here on: a released request would not be notified.
        outputs: list[tuple[Request, int | None, bool]] = []
        for (request, _), token in zip(readers, tokens, strict=True):
            request.tokens.append(token)
            ended = token in request.stop_ids or len(request.tokens) == request.length or request.is_complete
            outputs.append((request, token, ended))
            if ended:
                self._release(request)
        return outputs

    def _plan(self) -> tuple[attention.Batch, list[tuple[Request, int]], list[tuple[Request, slice]]]:
        """Schedule one token for every answer, then prompt tokens up to the limit of a step, in the order of `running`.

        Return the batch, the requests that get a token with its row in the logits, and the requests that need all rows
        of their prompt piece.
        """
        answers = sorted((request for request in self.running if request.pending == 1), key=lambda one: one.slot)
        pieces = [(request, 1) for request in answers]
        groups = attention.group((request.slot, len(request.tokens)) for request in answers)
        room = self.step_tokens
        for request in self.running:
            if request.pending > 1 and room > 0:
                count = min(request.pending, room, request.read_at_once)
                room -= count
                pieces.append((request, count))
                groups.append(attention.Group(request.slot, 1, count, request.cached + count))
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        last: list[int] = []
        readers: list[tuple[Request, int]] = []
        scored: list[tuple[Request, slice]] = []
        for request, count in pieces:
            end = request.cached + count
            ids += request.tokens[request.cached : end]
            positions += range(request.cached, end)
            slots += [request.slot] * count
            request.cached = end
            wants = 0 if request.pending else 1  # rows of logits
            if request.settings.prompt_logprobs and end <= request.prompt_length:
                wants = count
                scored.append((request, slice(len(last), len(last) + wants)))
            last += range(len(ids) - wants, len(ids))
            if not request.pending:
                readers.append((request, len(last) - 1))
        # dtype long even if empty: the first piece of a prompt gives no token
        tensors = (
            torch.tensor(part, dtype=torch.long, device=self.model.device) for part in (ids, positions, slots, last)
        )
        return attention.Batch(self.cache, *tensors, groups), readers, scored

    def _admit(self, request: Request) -> None:
        """Give the request the free slot that holds most of its prompt and the least of other tokens."""

        def worth(slot: int) -> tuple[float, int]:
            held = common(self.free[slot], request.tokens)
            return held - (len(self.free[slot]) - held) / LOST_WORTH, -slot

        request.slot = max(self.free, key=worth)
        held = common(self.free.pop(request.slot), request.tokens)
        request.cached = min(held, request.prompt_length - 1)  # at least one token has to be computed to get logits
        if request.settings.prompt_logprobs:
            request.cached = 0
        request.record.cached = request.cached
        insort(self.running, request, key=by_priority)

    def _release(self, request: Request) -> None:
        self.running.remove(request)
        self.free[request.slot] = request.tokens[: request.cached]

    def _deliver(self, outputs: Sequence[tuple[Request, int | None, bool]], failure: Exception | None = None) -> None:
        """Deliver a step's tokens to the loop, with one wake-up for all."""

        def hand_over() -> None:
            for request, token, ended in outputs:
                request.deliver(token, ended, failure)

        if not outputs:
            return
        assert self.loop is not None, "a request came without a loop"
        try:
            self.loop.call_soon_threadsafe(hand_over)
        except RuntimeError:  # the loop is closed: no caller is left
            for request, _, _ in outputs:
                request.cancelled = True

    def _fail(self, failure: Exception) -> None:
        """End all running and waiting requests, and forget the cache: it may be half written."""
        with self.changed:
            ended, self.running, self.waiting = [*self.running, *self.waiting], [], deque()
        self.free = {slot: [] for slot in range(self.cache.slots)}
        self._deliver([(request, None, True) for request in ended], failure)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return count
    return min(len(one), len(other))
