"""The fast path of predict, for requests whose body came with their head. It needs no task and no future.

The callback that reads the request also sends the frame to the worker. The callback that reads the worker's frame also
writes the answer. Requests that need more, such as a stream or a model that is loading, continue in a task with the
functions of `predict.py`. Clients see no difference: tests/http/test_both_ways.py sends its requests both ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import InvalidOutput
from ...runners.call import Call
from ...runners.pending import ClientLeft
from ...wire.frames import Resp
from ..exchange import CLIENT_LEFT, Exchange, spawn
from ..self_calls import look_at
from .predict import answer_bytes, pass_response, request_of

if TYPE_CHECKING:
    from ...hosting.model import HostedModel
    from ..body import BodyReader
    from ..request_entry import Entrance
    from .predict import Predict

ENDINGS = ("/predict", ":predict", ":predict_binary")


class FastPredict:
    """`refuse` answers a request with an error, `end` finishes it. Both are the same as for all other requests."""

    def __init__(
        self,
        entrance: Entrance,
        predict: Predict,
        reader: BodyReader,
        refuse: Callable[[Exchange, BaseException], Awaitable[None]],
        end: Callable[[Exchange], None],
    ) -> None:
        self._admit, self._predict, self._take = entrance.admit, predict, reader.take
        self._refuse, self._end = refuse, end

    def begin(self, scope: Any, cycle: Any) -> bool:
        """Start a predict that is answered when its worker's frame arrives.

        Return False if the request is not one; it then takes the normal path.
        """
        if scope["method"] != "POST" or not scope["path"].endswith(ENDINGS):
            return False
        exchange = Exchange(scope, cycle.receive, cycle.send, cycle)
        try:
            if self._admit(exchange) is not self._predict:
                return False
            if exchange.permits is not None:
                exchange.count_in()
            self._call(exchange)
        except Exception as error:
            self._finish(exchange, error)
        return True

    def _call(self, exchange: Exchange) -> None:
        """Start a call whose reply is written when the worker's frame is read."""
        model = self._predict.model(exchange)
        body = self._take(exchange.cycle, model.spec.limits.max_body)  # type: ignore[arg-type]  # `begin` sets it
        if model.state != "ready":
            exchange.task = spawn(self._answer_once_ready(exchange, model, body))
            return
        call = model.call(request_of(exchange, model, "predict"), body, exchange.patience())
        exchange.watch(call)
        if not call.has_slot:
            look_at(exchange, model, call)
        call.on_ready = partial(self._answer, exchange)

    def _answer(self, exchange: Exchange, call: Call) -> None:
        """Handle the first output of a call: its whole reply, the start of a stream, or an error."""
        try:
            if call.has_slot:  # otherwise `measure` sets them at the end
                exchange.queued, exchange.has_run, exchange.batched_at = call.queued, True, call.batched_at
            head = call.head
            if call.error is not None and not call.items:
                self._finish(exchange, call.error)
            elif head is None:
                self._finish(exchange, InvalidOutput("the model ended the call without an answer"))
            elif head.stream or head.raw or not exchange.reply_now(head.status, call.reply, head.content_type.encode()):
                exchange.task = spawn(self._answer_in_pieces(exchange, call, head))
            else:
                self._end(exchange)
        except Exception as error:  # raised in the channel's reader, it would break the replica
            self._finish(exchange, error)

    async def _answer_once_ready(self, exchange: Exchange, model: HostedModel, body: bytes) -> None:
        error: BaseException | None = None
        try:
            await answer_bytes(exchange, model, "predict", body)
        except asyncio.CancelledError:
            error = exchange.lost()
        except Exception as raised:
            error = raised
        self._finish(exchange, error)

    async def _answer_in_pieces(self, exchange: Exchange, call: Call, head: Resp) -> None:
        error: BaseException | None = None
        try:
            with call:
                await pass_response(exchange, call, head)
        except asyncio.CancelledError:
            error = exchange.lost()
        except Exception as raised:
            error = raised
        self._finish(exchange, error)

    def _finish(self, exchange: Exchange, error: BaseException | None) -> None:
        if error is None:
            self._end(exchange)
        elif isinstance(error, ClientLeft):
            exchange.status = CLIENT_LEFT
            self._end(exchange)
        else:
            spawn(self._refuse_and_end(exchange, error))

    async def _refuse_and_end(self, exchange: Exchange, error: BaseException) -> None:
        try:
            await self._refuse(exchange, error)
        finally:
            self._end(exchange)
