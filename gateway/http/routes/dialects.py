"""The routes of the dialects: read a request, call the model, encode its values as they arrive.

`streaming.py` sends streamed answers. An error before the first item has its own HTTP status; after it, the error is an
event of the stream. Streams and whole answers share one path: the returned value and the client's `stream` decide. n >
1 makes n calls, whose items are merged as they arrive.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from ...dialects.base import SSE, Context, Dialect, Encoder, Prepared
from ...dialects.fields import take
from ...dialects.plugin_dialects import completed
from ...dialects.raw import RawStream
from ...errors import GatewayError, InvalidJSON, InvalidOutput, UnsupportedMedia
from ...json_schemas import checker, most_values
from ...runners.call import Call
from ...runners.pending import ClientLeft
from ...spec import Endpoint
from ...wire.frames import DATA, MAX_PAYLOAD, Req
from ...wording import counted
from ..body import MAX_IDS, MOST_IDS, BodyReader, decode_object
from ..collected_body import too_large
from ..exchange import Exchange
from ..forms import decode_form
from ..off_loop import AT_ONCE, Beside
from ..self_calls import look_at
from .accounts import Account, Accounts, Inputs, Settle, packed
from .calls import Bodies, Together, heads, values, weigh
from .predict import check_encoding, http_scope, pass_response, seen_by
from .stored import Stored
from .streaming import TOO_DEEP, stream_bytes, stream_events
from .strict_parity import StrictParity
from .unusable_outputs import Teller
from .wait_for_model import until_ready

if TYPE_CHECKING:
    from ...hosting.catalog import Catalog
    from ...hosting.model import HostedModel
    from ...telemetry.log_tails import Tails
    from ..metrics.requests import Metrics

log = logging.getLogger("gateway.http")
MOST_SHOWN = 256  # characters of the model's name in an answer, which may repeat it in each event
CHECKED = 1 << 10  # bytes that are checked on the loop: some milliseconds, if each value is compared with many forms
MOST_TOLD = 32  # names listed in a header or log line


class Dialects:
    """Answers every endpoint that plugins registered."""

    def __init__(
        self,
        catalog: Catalog,
        dialects: Mapping[str, Dialect],
        stored: Stored,
        tails: Tails,
        reader: BodyReader,
        beside: Beside,
        metrics: Metrics,
        max_body: int,
    ) -> None:
        """`max_body` limits bodies while there is no model."""
        self._catalog, self._tails, self._reader, self._max_body = catalog, tails, reader, max_body
        self._beside, self._accounts = beside, Accounts(metrics, beside)
        self._strict, self.stored = StrictParity(catalog, beside), stored
        self._checks = {
            endpoint.path: (checker(endpoint.input_schema), most_values(endpoint.input_schema))
            for endpoint in catalog.endpoints
            if endpoint.input_schema
        }
        self._handlers: dict[str, Callable[[Exchange], Awaitable[None]]] = {
            endpoint.path: partial(self._serve, endpoint, completed(dialects[endpoint.dialect]))
            for endpoint in catalog.endpoints
        }

    def handler(self, endpoint: Endpoint) -> Callable[[Exchange], Awaitable[None]]:
        return self._handlers[endpoint.path]

    async def _serve(self, endpoint: Endpoint, dialect: Dialect, exchange: Exchange) -> None:
        """Handle a request from its body to its answer.

        It is this long because the order matters: each step needs the results of the earlier ones, and the calls stay
        open until the end of the last step.
        """
        if named := exchange.named:
            exchange.counted_for = self._catalog.find(named, exchange.sees).name
        check_encoding(exchange)
        body = b""
        if endpoint.verb == "POST":
            _check_content_type(exchange, dialect)
            body = await exchange.body(self._reader, self._limit(exchange, named))
        if (strict := await self._strict.find(endpoint, exchange, named, body)) is not None:
            await self._strict.answer(endpoint, exchange, strict, body)
            return
        check, most = self._checks.get(endpoint.path, (None, None))
        if endpoint.verb == "POST":
            fields = await self._fields(exchange, dialect, named, body, most)
        else:
            fields = _decoded(exchange.scope["query_string"])
        asked = take(fields, "model", str)
        model = self._catalog.find_for(endpoint, named or asked, exchange.sees)
        if endpoint.verb != "POST":  # only now it is known who will see it
            fields = _decoded(seen_by(model, exchange)[1])
        exchange.counted_for = model.name
        self._catalog.check_serves(model, endpoint)
        beside, size = self._beside, len(body)
        if size > model.spec.limits.max_body:
            raise too_large(model.spec.limits.max_body)
        if check is not None:  # before a model is loaded for the request
            await beside.do(exchange, size, partial(check, fields), CHECKED)
        if model.state != "ready":
            await until_ready(exchange, model, body)
            self._catalog.check_serves(model, endpoint)
        method = self._catalog.method_for(model, endpoint)
        turn = self.stored.turn(exchange, fields) if dialect.keeps else None
        with contextlib.ExitStack() as held:
            if turn is not None:
                held.callback(turn.let_go)
                fields, size = await turn.begin(size)
            prepared = await beside.do(exchange, size, partial(dialect.read, fields, method or endpoint.method))
            if prepared.left_out:
                _say_left_out(exchange, prepared.left_out)
            if method is None:
                told, headers = await beside.do(exchange, size, partial(dialect.estimate, prepared))
                await exchange.reply(200, told, headers=headers)
                return
            inputs = await beside.do(exchange, size, partial(dialect.calls, prepared, model.capabilities))
            size = await beside.do(exchange, size, partial(weigh, inputs, size, model.shares.max_bytes))
            calls = await self._open(held, inputs, size, method, model, prepared, exchange)
            known: Inputs = partial(list, inputs)
            if turn is not None and turn.has_read:
                known = await beside.do(None, size, partial(packed, inputs, size, model.counts_tokens))
            exchange.watch(calls[0] if len(calls) == 1 else Together(calls))
            if not calls[0].has_slot:
                look_at(exchange, model, calls[0])
            shown = (asked or named or model.name)[:MOST_SHOWN]
            context = Context(
                shown,
                secrets.token_hex(16),  # ids of stored answers must not be guessable
                int(time.time()),
                len(calls),
                model.capabilities,
                _stops(prepared.inputs) if model.spec.enforce_stop else (),
            )
            if turn is not None:
                turn.let_go()  # the calls count now, and nothing else of the conversation is held while they run
                prepared = replace(prepared, inputs={})
            del body, fields, inputs
            reader = partial(dialect.encoder, prepared, context)
            account = held.enter_context(Account(self._accounts, exchange, model, known, reader, size, calls))
            encoder = account.encoder
            held.push(partial(_retell, encoder, calls))
            teller = Teller(self._tails, exchange, method, calls)
            held.push(teller.leave)
            first = await heads(calls)
            exchange.measure()
            if len(calls) == 1 and first[0].raw:
                account.is_open = False
                await pass_response(exchange, calls[0], first[0])
                return
            streams = prepared.stream
            if dialect.value_decides and (streams := first[0].stream):
                calls[0].streams()
            settle = account.count if turn is None else turn.keeping(account.count, encoder, model.name, calls)
            if streams and encoder.stream_type == SSE:
                # events of another method, or with stop strings to find, are parsed instead of passed on
                passes = len(calls) == 1 and method == endpoint.method and not context.stops
                raw = RawStream(dialect.ending(prepared.n)) if passes else None
                work = stream_events(exchange, beside, dialect, account, calls, raw, settle, teller)
            elif streams:
                work = stream_bytes(exchange, beside, account, calls)
            else:
                work = _whole(exchange, beside, size, account, calls, settle)
            try:
                await work
            except RecursionError as error:
                raise InvalidOutput(TOO_DEEP) from error

    async def _open(
        self,
        held: contextlib.ExitStack,
        all_inputs: list[dict[str, Any]],
        size: int,
        method: str,
        model: HostedModel,
        prepared: Prepared,
        exchange: Exchange,
    ) -> list[Call]:
        """Open one call, or n calls if the model gives one answer for each; `held` ends them. All are admitted or none.

        Raises:
            Overloaded, Unavailable: the model takes no calls now.
            InvalidJSON: an integer in the request cannot be sent to a worker.
            TooLarge: together the encoded calls exceed the limit on queued bytes.
            ClientLeft: the client left while a large body was encoded.
        """
        if len(all_inputs) > 1:
            model.admission.check_room(len(all_inputs))
        scope = http_scope(exchange, model) if method in model.request_methods else None
        request_id, route = exchange.request_id, exchange.route
        stream, vectors = prepared.stream, prepared.vectors
        req = Req(method, DATA, stream, "application/json", request_id, False, None, scope, route, False, vectors)
        encoding = partial(Bodies, all_inputs, model.shares.max_bytes)
        try:
            bodies = await self._beside.do(exchange, size, encoding)
        except OverflowError as error:
            raise InvalidJSON("the body holds an integer that does not fit 64 bits") from error
        patience = exchange.patience()
        calls = []
        for number in range(len(all_inputs)):
            body = await self._beside.do(exchange, size, partial(bodies.of, number))
            calls.append(held.enter_context(model.call(req, body, patience)))
        if size > AT_ONCE and exchange.client_is_gone:
            raise ClientLeft
        return calls

    def _limit(self, exchange: Exchange, named: str) -> int:
        """Return the maximum body size: the model's limit, or the largest one while the model is unknown."""
        if named:
            return self._catalog.find(named, exchange.sees).spec.limits.max_body
        most = [model.spec.limits.max_body for model in self._catalog.seen(exchange.sees)]
        return max(most, default=self._max_body)

    async def _fields(
        self, exchange: Exchange, dialect: Dialect, named: str, body: bytes, most: int | None
    ) -> dict[str, Any]:
        if dialect.body == "form":
            kind = exchange.header(b"content-type")
            return await self._beside.do(exchange, len(body), partial(decode_form, body, kind))
        if dialect.takes_ids and len(body) > MAX_IDS:
            models = [self._catalog.find(named, exchange.sees)] if named else self._catalog.seen(exchange.sees)
            longest = max([MAX_IDS, *(model.capabilities.max_model_len or 0 for model in models)])
            most = min(longest, MOST_IDS)
        return await self._beside.do(exchange, len(body), partial(decode_object, body, values=most))


async def _whole(
    exchange: Exchange, beside: Beside, size: int, account: Account, calls: list[Call], settle: Settle
) -> None:
    """Answer with a whole response. `size` is the size of the request: parts of it may be in the answer."""
    encoder = account.encoder
    async with aclosing(values(calls)) as batches:
        async for number, items, taken in batches:
            account.first_at = account.first_at or time.monotonic()
            work = encoder.work(items, taken)
            size += work
            await beside.do(exchange, work, partial(encoder.feed, items, number))
            if encoder.is_complete:
                break
            _check_whole(calls)
    await settle()
    body, headers = await beside.do(exchange, size, encoder.whole)
    await exchange.reply(200, body, encoder.content_type, headers)
    account.failed = ""


def _retell(encoder: Encoder, calls: list[Call], kind: object, error: object, trace: object) -> None:
    """Rewrite the error of a call about its inputs in the terms of its route."""
    for number, call in enumerate(calls):
        if call.error is error and isinstance(error, GatewayError):
            encoder.retell(error, number)


def _check_whole(calls: list[Call]) -> None:
    """Apply the limit of whole answers to one that comes item by item.

    Raises:
        InvalidOutput: it is larger.
    """
    if sum(call.taken for call in calls) > MAX_PAYLOAD:
        raise InvalidOutput(f"the answer has more than {counted(MAX_PAYLOAD, 'byte')}; a larger one can be streamed")


def _say_left_out(exchange: Exchange, names: tuple[str, ...]) -> None:
    more = [f"and {len(names) - MOST_TOLD} more"] if len(names) > MOST_TOLD else []  # clients limit the size of heads
    told = ", ".join([*names[:MOST_TOLD], *more])
    exchange.also += ((b"x-gateway-left-out", told.encode()),)
    fields = {"request_id": exchange.request_id, "model": exchange.counted_for}
    log.info("request %s: model '%s' did not get %s", exchange.request_id, exchange.counted_for, told, extra=fields)


def _decoded(query: bytes) -> dict[str, Any]:
    return dict(parse_qsl(query.decode("latin-1")))


def _stops(inputs: dict[str, Any]) -> tuple[str, ...]:
    """Return the stop strings of a request, from OpenAI's or Anthropic's field."""
    return tuple(inputs.get("stop") or inputs.get("stop_sequences") or ())


def _check_content_type(exchange: Exchange, dialect: Dialect) -> None:
    """Check the type only of requests with an Origin: a browser's form post must be refused."""
    if b"origin" in exchange.headers:
        kind = exchange.header(b"content-type").partition(";")[0].strip().lower()
        expected = "multipart/form-data" if dialect.body == "form" else "application/json"
        if kind != expected:
            raise UnsupportedMedia(f"content-type '{kind[:64]}' from a browser; send {expected}")
