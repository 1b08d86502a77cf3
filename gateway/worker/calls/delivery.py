"""Deliver what a method returned: a value as a whole, an iterator item by item, a Response unchanged.

Items are produced only as far as the stream's window allows. The last frame is sent when the code has stopped: an
iterator has been exhausted or closed, on its thread or in its task.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import Any

from ...wire import frames
from ...wire.values import encode
from .. import log_records
from ..bodies import responses, results, truss, vectors
from .answers import NOTHING, Answers
from .missing_return import Nothing
from .run import Run
from .threads import Outbox, Pool

BURST = 0.001  # seconds an async generator may run without a pause before its items are sent


class Delivery:
    """`pool` has the threads of runs that hold a slot, `tails` those of runs that no longer hold one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox,
        answers: Answers,
        pool: Pool,
        tails: Pool,
        nothing: Nothing,
    ) -> None:
        self._loop, self._outbox, self._answers = loop, outbox, answers
        self._pool, self._tails, self._nothing = pool, tails, nothing

    def pump(self, run: Run, stream: Any) -> None:
        """Iterate to the end or the cancellation, and close the iterator on this thread. Never raises."""
        outbox, answers = self._outbox, self._answers  # do not bind `put`: it differs in a forked process
        log_records.request_id.set(run.head.request_id)
        error: BaseException | None = None
        payload: bytes | None = None
        try:
            if run.head.gather:
                run.stage = "gather"
                payload = final_resp(run, _gather(run, stream))
            else:
                _begin(run)
                outbox.put(answers.stream_head, run)
                pack, window, batch = None, run.window, run.batch
                source = _with_return_value(stream) if run.head.mode == frames.DATA else stream
                for item in source:
                    if pack is None:
                        pack, content_type = _packer(run, item)
                        if content_type != truss.BINARY:
                            outbox.put(answers.stream_type, run, content_type)
                    packed = pack(item)
                    if not window.wait():
                        if run.may_go_on:  # it checks for the cancellation itself
                            continue
                        break
                    window.count(len(packed))
                    batch.append(packed)
                    if not run.is_due:  # one callback for all items until the loop has its turn
                        run.is_due = True
                        outbox.put(answers.flush_soon, run)
        except BaseException as raised:
            error = raised
        try:
            close = getattr(stream, "close", None)
            if close is not None:
                close()
        except BaseException as raised:
            error = error or raised
        if error is not None:
            outbox.put(answers.fail, run, error)
        elif payload is not None:
            outbox.put(answers.reply, run, payload)
        else:
            outbox.put(answers.end, run)

    async def deliver(self, run: Run, value: Any) -> None:
        run.rules.check(value, run.head.content_type)
        if inspect.isawaitable(value):
            value = await value
        if hasattr(value, "__aiter__"):
            await self._iterate(run, value)
        elif is_sync_stream(value):
            run.task = None  # its thread ends the run, not a task
            (self._pool if run.holds_slot else self._tails).submit(self.pump, run, value)
        elif responses.is_response(value):
            await self._respond(run, value)
        else:
            if value is None:
                self._nothing.seen(run)
            self._answers.reply(run, final_resp(run, value))

    async def _iterate(self, run: Run, stream: AsyncIterator[Any]) -> None:
        pack, window, now = None, run.window, self._loop.time
        gather, item_ready = run.head.gather, self._answers.item
        gathered: list[bytes] = []
        try:
            if gather:
                run.stage = "gather"
            else:
                _begin(run)
                self._answers.stream_head(run)
            run.batch_since = now()
            async for item in stream:
                if window.closed:  # it stops by itself, or caught the cancellation
                    if not run.may_go_on:
                        break
                elif gather:
                    gathered.append(_text(item))
                else:
                    if pack is None:
                        pack, content_type = _packer(run, item)
                        if content_type != truss.BINARY:
                            self._answers.stream_type(run, content_type)
                    packed = pack(item)
                    if not window.has_room:
                        await window.wait_async()
                    window.count(len(packed))
                    item_ready(run, packed)
                if now() - run.batch_since > BURST:
                    await asyncio.sleep(0)  # it does not pause: let its items and a cancel through
                    run.batch_since = now()
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        if gather:
            self._answers.reply(run, final_resp(run, run.rules.text(b"".join(gathered))))
        else:
            self._answers.end(run)

    async def _respond(self, run: Run, response: Any) -> None:
        """Send a Response object of the user: its status, headers and bytes are unchanged."""
        plain = responses.as_plain(response)
        if plain is not None:
            status, headers, body = plain
            responses.check(status, headers)
            responses.check_size(len(body))
            head = frames.Resp(status, frames.BYTES, False, True, "", headers, raw=True)
            self._answers.reply(run, frames.join(head, body))
            return

        async def send_head(status: int, headers: list[tuple[str, str]]) -> None:
            responses.check(status, headers)
            head = frames.Resp(status, frames.BYTES, True, False, "", headers, raw=True)
            self._answers.send(frames.RESP, run.id, frames.join(head))
            is_empty = status in (204, 304) or ("content-length", "0") in headers
            if run.rules.head_first or is_empty:  # no item will follow, but maybe a background task
                run.window.count(len(NOTHING))
                self._answers.item(run, NOTHING)

        async def send_chunk(chunk: bytes) -> None:
            await run.window.wait_async()
            packed = _checked(encode(chunk))
            run.window.count(len(packed))
            self._answers.item(run, packed)
            if self._loop.time() - run.batch_since > BURST:
                await asyncio.sleep(0)

        await responses.play(response, run.cancellation, send_head, send_chunk)
        self._answers.end(run)


def final_resp(run: Run, value: Any) -> bytes:
    """Return the payload of a final resp.

    Raises:
        Unserializable: the value cannot be encoded.
    """
    if run.head.mode == frames.DATA:
        return frames.join(frames.Resp(200, frames.DATA, False, True, ""), _data(run)(value))
    body, content_type = run.rules.write(value, truss.is_binary(run.head.content_type))
    responses.check_size(len(body))
    return frames.join(frames.Resp(200, frames.BYTES, False, True, content_type), body)


def _data(run: Run) -> Callable[[Any], bytes]:
    """What packs the values of a dialect."""
    form = run.head.vectors
    return partial(vectors.pack, form=form) if form else results.pack


def _packer(run: Run, first: Any) -> tuple[Callable[[Any], bytes], str]:
    """Return a function that encodes the items of a stream, and its content type, chosen by the first item."""
    if run.head.mode == frames.DATA:
        return _data(run), truss.BINARY
    chunk, content_type = run.rules.chunker(first, run.head.events)
    return lambda item: _checked(encode(chunk(item))), content_type


def _checked(packed: bytes) -> bytes:
    if len(packed) > frames.MAX_ITEM:
        responses.check_size(len(packed))
    return packed


def _begin(run: Run) -> None:
    """Its items are sent from now on."""
    run.stage = "stream" if run.holds_slot else "tail"
    if run.rules.head_first:
        run.window.count(len(NOTHING))


def is_sync_stream(value: Any) -> bool:
    """Return whether it is iterated on a thread: a generator or another iterator."""
    return isinstance(value, Generator) or (hasattr(value, "__next__") and hasattr(value, "__iter__"))


def needs_loop(value: Any) -> bool:
    """Return whether it needs the event loop: an awaitable, an async iterator, a Response."""
    return inspect.isawaitable(value) or hasattr(value, "__aiter__") or responses.is_response(value)


def _with_return_value(stream: Iterator[Any]) -> Iterator[Any]:
    """Yield a generator's items, then its return value, so that authors can end with `return {"usage": ...}`."""
    if not isinstance(stream, Generator):
        yield from stream
        return
    value = yield from stream
    if value is not None:
        yield value


def _gather(run: Run, stream: Iterator[Any]) -> str:
    """Return all items as one text; if the run is cancelled, the items so far."""
    parts = []
    for item in stream:
        parts.append(_text(item))
        if run.cancelled and not run.may_go_on:
            break
    return run.rules.text(b"".join(parts))


def _text(item: Any) -> bytes:
    return bytes(item) if isinstance(item, (bytes, bytearray)) else str(item).encode()
