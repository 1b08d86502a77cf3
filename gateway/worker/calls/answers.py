"""Send the frames of each call to the gateway: heads, items, and one last frame.

Everything here runs on the event loop. The last frame means that the code has stopped; nothing follows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sized

from ...spec import ModelSpec
from ...wire import frames
from ...wire.values import encode
from ..bodies import truss
from ..bodies.failures import BadInput, Unserializable, encode_failure, is_sticky, log, places_of, say, text_of
from ..bodies.whole_body import about_body
from ..thread_channel import ThreadChannel
from .run import Run

NOTHING = encode(b"")  # an empty item, which makes the gateway send the head
LARGE = 8 << 20  # bytes
AT_ONCE = 32  # answers sent in parts at a time, two of them large: less than the gateway's `MAX_PENDING`


class Answers:
    """Send the answers of all calls. `on_last` is called once for each run, after its last frame; `runs` are all."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: ThreadChannel,
        on_last: Callable[[Run], None],
        runs: Sized,
        *,
        spec: ModelSpec,
        debug: bool,
    ) -> None:
        self._loop, self._channel, self._on_last, self._runs = loop, channel, on_last, runs
        self._spec, self._debug = spec, debug
        self._due: list[Run] = []  # runs with queued items
        self._sending: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(2)

    # ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────

    def stream_head(self, run: Run) -> None:
        self.send(frames.RESP, run.id, frames.join(frames.Resp(200, run.head.mode, True, False, truss.BINARY)))
        if run.rules.head_first:  # not with later items, before which the content type may come
            self.send(frames.ITEMS, run.id, frames.join_items([NOTHING]))

    def stream_type(self, run: Run, content_type: str) -> None:
        """Send the head again with the content type of the stream, before the first item."""
        self.send(frames.RESP, run.id, frames.join(frames.Resp(200, run.head.mode, True, False, content_type)))

    def item(self, run: Run, packed: bytes) -> None:
        """Queue one item; it is sent with all others of this turn of the event loop."""
        if not run.batch:
            run.batch_since = self._loop.time()
        run.batch.append(packed)
        if not run.is_due:
            self.flush_soon(run)

    def flush_soon(self, run: Run) -> None:
        """Send the queued items in this turn of the event loop. Threads queue items themselves, see `Delivery.pump`."""
        run.is_due = True
        if not self._due:
            self._loop.call_soon(self._flush_all)
        self._due.append(run)

    def _flush_all(self) -> None:
        due, self._due = self._due, []
        for run in due:
            self._flush(run)

    def _flush(self, run: Run) -> None:
        run.is_due = False  # before the items are taken: a thread that adds one then asks for the next flush
        if not run.batch:
            return
        batch = [run.batch.popleft() for _ in range(len(run.batch))]
        if run.cancelled:
            return
        payload = frames.join_items(batch)
        if len(payload) <= frames.MAX_FRAME:
            self.send(frames.ITEMS, run.id, payload)
        else:  # send each item alone, because each was weighed alone
            for packed in batch:
                self.send(frames.ITEMS, run.id, frames.join_items([packed]))

    # ── the last frame ───────────────────────────────────────────────────────────────────────────────────────────

    def reply(self, run: Run, payload: bytes) -> None:
        """Send a whole answer."""
        if run.cancelled:
            self.end(run)
        elif len(payload) <= frames.MAX_FRAME:
            self._finish(run, frames.RESP, payload)
        elif not run.ended:
            run.ended = True
            task = self._loop.create_task(self._reply_in_parts(run, payload))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def reply_now(self, run: Run, payload: bytes) -> bool:
        """Send a whole answer of at most MAX_FRAME bytes from a thread. False if the event loop has to do it."""
        if run.cancelled or not self._channel.send_now(frames.RESP, run.id, payload):
            return False
        run.ended = True
        return True

    async def _reply_in_parts(self, run: Run, payload: bytes) -> None:
        """Send an answer so that other frames go in between, and stop when the call is cancelled."""
        try:
            async with self._turns[len(payload) > LARGE]:
                if not await self._channel.send_large(frames.RESP, run.id, payload, lambda: not run.cancelled):
                    self.send(frames.END, run.id)
        except ConnectionError:
            pass
        self._on_last(run)

    def end(self, run: Run) -> None:
        """End a stream that is complete, or a cancelled call whose code has stopped."""
        self._flush(run)
        self._finish(run, frames.END, b"")

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
            self._finish(run, frames.END, b"")
        else:
            self._finish(run, frames.ERROR, encode_failure(failure))
        self.give_up_after(error)

    def give_up_after(self, error: BaseException) -> None:
        """End this worker if the error means that every later call will fail."""
        if is_sticky(error):
            reason = f"the device is lost for this process ({text_of(error)}); it needs a new one"
            self.send(frames.ERROR, 0, encode_failure(frames.Failure(503, "model_crashed", "", reason=reason)))

    def give_back(self, run: Run) -> None:
        """End a run that the gateway wants back, before any code of the model has run."""
        self._finish(run, frames.RECALL, b"")

    def refuse(self, run: Run, failure: frames.Failure) -> None:
        """End a run before any code of the model has run."""
        self._finish(run, frames.ERROR, encode_failure(failure))

    def _finish(self, run: Run, kind: int, payload: bytes) -> None:
        if run.ended:
            return
        run.ended = True
        if len(self._runs) > 1 and len(payload) <= frames.MAX_FRAME:  # others end at about this time
            try:
                self._channel.send_soon(kind, run.id, payload)
            except ConnectionError:
                pass  # as in `send`; `suppress` would take as long as the sending
        else:
            self.send(kind, run.id, payload)
        self._on_last(run)

    def send(self, kind: int, call: int, payload: bytes = b"") -> None:
        try:
            self._channel.send_split(kind, call, payload)
        except ConnectionError:
            pass  # the gateway is gone; this process ends in a moment
