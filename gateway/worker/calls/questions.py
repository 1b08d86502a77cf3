"""Answer the gateway's own questions: the model's health, and swapping its class. Questions take no slot.

Each is a task that ends with one frame: `answer`, `error`, or `end` if it was cancelled and its code has stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...wire import frames
from ...wire.values import encode
from .. import log_records
from ..bodies.failures import encode_failure, log, say, to_failure
from ..loading import disconnect_checks, hot_reload
from ..loading.derived_methods import derive
from ..loading.descriptor import Descriptor, capabilities
from ..loading.load_report import encoded
from ..loading.loader import Loaded
from .answers import Answers
from .invoke import invoke
from .threads import Outbox, Pool


class Questions:
    """`aux` runs the import of new code; `on_new_code` is called when the new code is in place."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answers: Answers,
        outbox: Outbox,
        aux: Pool,
        loaded: Loaded,
        hello: frames.Hello,
        on_new_code: Callable[[Descriptor], None],
    ) -> None:
        self._loop, self._answers, self._aux, self._loaded = loop, answers, aux, loaded
        self._endpoint_methods, self._debug = frozenset(hello.endpoint_methods), hello.debug
        self._on_new_code = on_new_code
        self.probes = Pool(1, "health", outbox)  # a separate pool, so that hooks do not delay them
        self._running: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[int] = set()

    def ask(self, id: int, head: frames.Ask) -> None:
        """Start to answer an `ask` frame."""
        self._running[id] = self._loop.create_task(self._serve(id, head.what))

    def cancel(self, id: int) -> bool:
        """Cancel a question at its next await. False if there is no such question."""
        task = self._running.get(id)
        if task is None:
            return False
        self._cancelled.add(id)
        self._loop.call_soon(task.cancel)  # after its first turn; before that it would send no frame
        return True

    async def drained(self) -> None:
        """Wait until no question is left."""
        if self._running:
            await asyncio.wait(self._running.values())

    async def _serve(self, id: int, what: frames.What) -> None:
        log_records.request_id.set(what)
        try:
            if id in self._cancelled:
                raise asyncio.CancelledError
            answer = await (self._health() if what == "is_healthy" else self._swap())
        except BaseException as error:  # including a cancellation
            self._end(id, what, error)
        else:
            self._end(id, what, answer=answer)

    def _end(self, id: int, what: frames.What, error: BaseException | None = None, answer: bytes = b"") -> None:
        """Send its last frame."""
        del self._running[id]
        if id in self._cancelled:
            self._cancelled.discard(id)
            self._answers.send(frames.END, id)
        elif error is None:
            self._answers.send(frames.ANSWER, id, answer)
        else:
            log(error, what, self._loaded.spec, what)
            self._answers.send(frames.ERROR, id, encode_failure(to_failure(error, self._debug)))
            self._answers.give_up_after(error)

    async def _health(self) -> bytes:
        method = self._loaded.descriptor.is_healthy
        value: Any = None if method is None else await invoke(method, self.probes)
        if value is not None and not value:
            say("Health check failed.")  # Truss's words
        return encode(None if value is None else bool(value))

    async def _swap(self) -> bytes:
        """Load new code for the existing instance. Returns its new capabilities."""
        loaded = self._loaded
        found = await self._aux.run(hot_reload.reload, loaded, self._endpoint_methods)
        loaded.descriptor = derive(loaded.model, disconnect_checks.mark(found, loaded.spec), loaded.spec)
        self._on_new_code(loaded.descriptor)
        return encoded(capabilities(loaded.model, loaded.descriptor))
