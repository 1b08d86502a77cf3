"""What the gateway is told of the calls: heads, items, and one last frame each.

Everything here happens on the loop. The last frame says that the code has stopped, so nothing follows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .. import wire
from ..channel import Channel
from ..spec import ModelSpec
from . import truss
from .failures import BadInput, Unserializable, encode_failure, is_sticky, log, places_of, say, text_of
from .run import Run
from .whole_body import about_body

NOTHING = wire.encode(b"")  # an item that only sends the head on its way
LARGE = 8 << 20  # bytes
AT_ONCE = 32  # answers that are sent in parts, two of them large: less than the gateway holds, see `MAX_PENDING`


class Answers:
    """The worker's side of every call. `on_last` is called once for each run, after its last frame."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        on_last: Callable[[Run], None],
        *,
        spec: ModelSpec,
        debug: bool,
    ) -> None:
        self._loop, self._channel, self._on_last = loop, channel, on_last
        self._spec, self._debug = spec, debug
        self._dirty: list[Run] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(2)

    # ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────

    def stream_head(self, run: Run) -> None:
        self.send(wire.RESP, run.id, wire.join(wire.Resp(200, run.head.mode, True, False, truss.BINARY)))
        if run.rules.head_first:
            self.item(run, NOTHING)

    def stream_type(self, run: Run, content_type: str) -> None:
        """The head again, before the first item, which tells what the stream is."""
        self.send(wire.RESP, run.id, wire.join(wire.Resp(200, run.head.mode, True, False, content_type)))

    def item(self, run: Run, packed: bytes) -> None:
        """One item; it leaves with all others of this turn of the loop."""
        if not run.batch:
            run.batch_since = self._loop.time()
            if not self._dirty:
                self._loop.call_soon(self._flush_all)
            self._dirty.append(run)
        run.batch.append(packed)

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for run in dirty:
            self._flush(run)

    def _flush(self, run: Run) -> None:
        if run.batch:
            batch, run.batch = run.batch, []
            if run.cancelled:
                return
            payload = wire.join_items(batch)
            if len(payload) <= wire.MAX_FRAME:
                self.send(wire.ITEMS, run.id, payload)
            else:  # a large one alone, as it was weighed
                for packed in batch:
                    self.send(wire.ITEMS, run.id, wire.join_items([packed]))

    # ── the last frame ───────────────────────────────────────────────────────────────────────────────────────────

    def reply(self, run: Run, payload: bytes) -> None:
        """A whole answer."""
        if run.cancelled:
            self.end(run)
        elif len(payload) <= wire.MAX_FRAME:
            self._finish(run, wire.RESP, payload)
        elif not run.ended:
            run.ended = True
            task = self._loop.create_task(self._reply_in_parts(run, payload))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _reply_in_parts(self, run: Run, payload: bytes) -> None:
        """Others get their frames in between, and a client that leaves need not be sent the rest."""
        try:
            async with self._turns[len(payload) > LARGE]:
                if not await self._channel.send_large(wire.RESP, run.id, payload, lambda: not run.cancelled):
                    self.send(wire.END, run.id)
        except ConnectionError:
            pass
        self._on_last(run)

    def end(self, run: Run) -> None:
        """A stream is complete, or a call was cancelled and its code has stopped."""
        self._flush(run)
        self._finish(run, wire.END, b"")

    def fail(self, run: Run, error: BaseException) -> None:
        self._flush(run)
        if type(error) is Unserializable and run.stage in ("stream", "tail"):
            error.args = (f"item {run.window.sent + 1} of the stream: {error}",)
        failure = run.rules.failure(error, run.stage, self._debug)
        if failure is None or failure.status >= 500 or not isinstance(error, BadInput | Unserializable):
            log(error, run.head.request_id, self._spec, run.told(self._spec.name))
            if advice := about_body(error, run.method.name, places_of(self._spec)):
                say(f"[{run.head.request_id}] {advice}")
        if failure is None:
            self._finish(run, wire.END, b"")
        else:
            self._finish(run, wire.ERROR, encode_failure(failure))
        if is_sticky(error):
            reason = f"the device is lost to this process ({text_of(error)}); it needs a new one"
            self.send(wire.ERROR, 0, encode_failure(wire.Failure(503, "model_crashed", "", reason=reason)))

    def refuse(self, run: Run, failure: wire.Failure) -> None:
        """It ends before any of the model's code ran."""
        self._finish(run, wire.ERROR, encode_failure(failure))

    def _finish(self, run: Run, kind: int, payload: bytes) -> None:
        if run.ended:
            return
        run.ended = True
        self.send(kind, run.id, payload)
        self._on_last(run)

    def send(self, kind: int, call: int, payload: bytes = b"") -> None:
        try:
            self._channel.send_split(kind, call, payload)
        except ConnectionError:
            pass  # the gateway is gone, and so is this process in a moment
