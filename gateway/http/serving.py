"""The routes of the dialects: a request read, sent to the model, its values encoded as they come.

Up to the first item an error has its real status; after it, it is an event of the stream. One path for streams and
whole answers: the value that comes back and the client's `stream` decide, n > 1 is n calls merged as items come.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from ..call import Call, ClientLeft
from ..dialects.base import SSE, Context, Dialect, Encoder, Prepared, take
from ..dialects.event_stream import one_line
from ..dialects.foreign import completed
from ..dialects.raw import Opening, RawStream
from ..errors import GatewayError, InvalidJSON, InvalidOutput, ModelError, UnsupportedMedia
from ..spec import Endpoint
from ..wire import DATA, MAX_PAYLOAD, Req, encode
from ..wording import counted
from . import sse
from .accounts import Account, Accounts
from .body import MAX_IDS, MOST_IDS, BodyReader, decode_object, too_large
from .errors import broke_off
from .exchange import CLIENT_LEFT, UNBUFFERED, Exchange
from .forms import decode_form
from .kin import look_at
from .misgiven import Teller
from .predict import check_encoding, http_scope, pass_response
from .runs import Batch, Together, check_together, heads, values
from .stored import Stored
from .verbatim import Verbatim
from .waiting import until_ready

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub
    from .metrics import Metrics

log = logging.getLogger("gateway.http")
MOST_TOLD = 32  # of what a model is not given
Events = AsyncGenerator[bytes, None]
Batches = AsyncGenerator[Batch, None]
Settle = Callable[[], Awaitable[None]]  # before the end of an answer that says how many tokens there were
TOO_DEEP = "the model's answer is nested too deep"  # requests are not: a body of more than 64 levels is refused


class Serving:
    """Answers every endpoint that plugins registered."""

    def __init__(self, hub: Hub, reader: BodyReader, metrics: Metrics) -> None:
        self._hub, self._reader, self._accounts = hub, reader, Accounts(metrics)
        self.stored = Stored(hub)
        self._verbatim = Verbatim(hub)
        dialects = hub.plugins.dialects()
        self._handlers: dict[str, Callable[[Exchange], Awaitable[None]]] = {
            endpoint.path: partial(self._serve, endpoint, completed(dialects[endpoint.dialect]))
            for endpoint in hub.endpoints
        }

    def handler(self, endpoint: Endpoint) -> Callable[[Exchange], Awaitable[None]]:
        return self._handlers[endpoint.path]

    async def _serve(self, endpoint: Endpoint, dialect: Dialect, exchange: Exchange) -> None:
        if named := exchange.model:
            exchange.model = self._hub.find(named, exchange.sees).name
        check_encoding(exchange)
        body = b""
        if endpoint.verb == "POST":
            _check_content_type(exchange, dialect)
            body = await exchange.body(self._reader, self._limit(exchange, named))
        if (strict := self._verbatim.find(endpoint, exchange, named, body)) is not None:
            await self._verbatim.answer(endpoint, exchange, strict, body)
            return
        fields = self._parse(exchange, dialect, named, body) if endpoint.verb == "POST" else _query(exchange)
        asked = take(fields, "model", str)
        model = self._hub.find_for(endpoint, named or asked, exchange.sees)
        exchange.model = model.name
        self._hub.check_serves(model, endpoint)
        if model.state != "ready":
            await until_ready(exchange, model, body)
            self._hub.check_serves(model, endpoint)
        if len(body) > model.spec.limits.max_body:
            raise too_large(model.spec.limits.max_body)
        method = self._hub.method_for(model, endpoint)
        turn = self.stored.turn(exchange, fields) if dialect.keeps else None
        prepared = dialect.read(fields if turn is None else await turn.begin(), method or endpoint.method)
        if prepared.left_out:
            _say_left_out(exchange, prepared.left_out)
        if method is None:
            told, headers = dialect.estimate(prepared)
            await exchange.reply(200, told, headers=headers)
            return
        inputs = dialect.runs(prepared, model.capabilities)
        with contextlib.ExitStack() as held:
            calls = [held.enter_context(call) for call in _open(inputs, method, model, prepared, exchange)]
            exchange.watch(calls[0] if len(calls) == 1 else Together(calls))
            if not calls[0].has_slot:
                look_at(exchange, model, calls[0])
            shown = asked or named or model.name
            context = Context(
                shown,
                secrets.token_hex(16),  # nobody may guess the id of an answer that is kept
                int(time.time()),
                len(calls),
                model.capabilities,
                _stops(prepared.inputs) if model.spec.enforce_stop else (),
            )
            reader = partial(dialect.encoder, prepared, context)
            account = held.enter_context(Account(self._accounts, exchange, model, inputs, reader))
            encoder = account.encoder
            held.push(partial(_retell, encoder, calls))
            teller = Teller(self._hub.tails, exchange, method, calls)
            held.push(teller.leave)
            first = await heads(calls)
            exchange.measure()
            if len(calls) == 1 and first[0].raw:
                account.is_open = False
                await pass_response(exchange, calls[0], first[0])
                return
            settle = account.count if turn is None else turn.keeping(account.count, encoder, model.name)
            if prepared.stream and encoder.stream_type == SSE:
                # SSE of another method, or with stop strings to look for, is read and not passed on
                passes = len(calls) == 1 and method == endpoint.method and not context.stops
                raw = RawStream(dialect.ending(prepared.n)) if passes else None
                work = self._stream(exchange, dialect, account, calls, raw, settle, teller)
            elif prepared.stream:
                work = _stream_bytes(exchange, account, calls)
            else:
                work = _whole(exchange, account, calls, settle)
            try:
                await work
            except RecursionError as error:
                raise InvalidOutput(TOO_DEEP) from error

    def _limit(self, exchange: Exchange, named: str) -> int:
        """How large a body may be: the model's limit, or the largest of all while it is not known which is meant."""
        if named:
            return self._hub.find(named, exchange.sees).spec.limits.max_body
        most = [model.spec.limits.max_body for model in self._hub.seen(exchange.sees)]
        return max(most, default=self._hub.settings.gateway.limits.max_body)

    def _parse(self, exchange: Exchange, dialect: Dialect, named: str, body: bytes) -> dict[str, Any]:
        if dialect.body == "form":
            return decode_form(body, exchange.header(b"content-type"))
        if dialect.takes_ids and len(body) > MAX_IDS:
            models = [self._hub.find(named, exchange.sees)] if named else self._hub.seen(exchange.sees)
            longest = max([MAX_IDS, *(model.capabilities.max_model_len or 0 for model in models)])
            return decode_object(body, values=min(longest, MOST_IDS))
        return decode_object(body)

    async def _stream(
        self,
        exchange: Exchange,
        dialect: Dialect,
        account: Account,
        calls: list[Call],
        raw: RawStream | None,
        settle: Settle,
        teller: Teller,
    ) -> None:
        """The first values are encoded before the status goes out: nonsense is an error, not a 200."""
        account.is_streamed = True
        async with aclosing(values(calls)) as batches:
            first = await anext(batches, None) or (0, [])  # Python 3.11 fails on a default that is a tuple
            account.first_at = time.monotonic()
            opening, held = Opening(dialect.protocol), [*first[1]]
            shows = opening.feed(first[1]) if len(calls) == 1 else "read"
            while shows is None and (batch := await anext(batches, None)) is not None:
                held += batch[1]
                shows = opening.feed(batch[1])
            if raw is not None and (shows or opening.end()) == "pass":
                events = _raw_events(exchange, account, raw, batches, held, teller)
            else:
                events = _events(exchange, account, batches, account.encoder.feed(held, first[0]), settle, teller)
            async with aclosing(events):
                await sse.stream(exchange, events, dialect.ping)
        if exchange.cycle is not None and exchange.cycle.disconnected:
            exchange.status = CLIENT_LEFT


async def _whole(exchange: Exchange, account: Account, calls: list[Call], settle: Settle) -> None:
    encoder = account.encoder
    async with aclosing(values(calls)) as batches:
        async for run, items in batches:
            account.first_at = account.first_at or time.monotonic()
            encoder.feed(items, run)
            if encoder.is_complete:
                break
            _check_whole(calls)
    await settle()
    body, headers = encoder.whole()
    await exchange.reply(200, body, encoder.content_type, headers)
    account.failed = ""


async def _stream_bytes(exchange: Exchange, account: Account, calls: list[Call]) -> None:
    """A stream without framing, such as audio: an error after its first byte breaks it off."""
    encoder = account.encoder
    async with aclosing(values(calls)) as batches:
        first, last = encoder.start(), b""
        while not first and (batch := await anext(batches, None)) is not None:
            first = encoder.feed(batch[1], batch[0])
        if not first:
            last = encoder.finish()
        await exchange.start(200, [(b"content-type", encoder.stream_type), UNBUFFERED])
        try:
            if first:
                await exchange.write(first)
                async for run, items in batches:
                    if chunk := encoder.feed(items, run):
                        await exchange.write(chunk)
                last = encoder.finish()
        except Exception:
            exchange.break_off()
            raise
        await exchange.write(last, last=True)
    account.failed = ""


async def _events(
    exchange: Exchange, account: Account, batches: Batches, chunk: bytes, settle: Settle, teller: Teller
) -> Events:
    encoder, between, now = account.encoder, account.between, time.monotonic
    last_at = account.first_at
    try:
        yield one_line(encoder.start() + chunk)
        if encoder.failure is not None:
            raise encoder.failure
        while not encoder.is_complete and (batch := await anext(batches, None)) is not None:
            run, items = batch
            chunk = encoder.feed(items, run)
            if chunk:
                moment = now()
                between.add((moment - last_at) / len(items))
                last_at = moment
                yield one_line(chunk)
            if encoder.failure is not None:
                raise encoder.failure
        if encoder.ends_with_usage:
            await settle()
        yield one_line(encoder.finish())
        account.failed = ""
    except ClientLeft:
        pass
    except Exception as error:
        yield _failure(exchange, account, error, teller)
    finally:
        account.end_call()


def _retell(encoder: Encoder, calls: list[Call], kind: object, error: object, trace: object) -> None:
    """What a call said of its inputs, in the words of its route."""
    for run, call in enumerate(calls):
        if call.error is error and isinstance(error, GatewayError):
            encoder.retell(error, run)


def _check_whole(calls: list[Call]) -> None:
    """What comes item by item, to be answered whole, is bounded as what comes at once is.

    Raises:
        InvalidOutput: it is larger.
    """
    if sum(call.taken for call in calls) > MAX_PAYLOAD:
        raise InvalidOutput(f"the answer has more than {counted(MAX_PAYLOAD, 'byte')}; a larger one can be streamed")


def _say_left_out(exchange: Exchange, names: tuple[str, ...]) -> None:
    more = (
        [f"and {len(names) - MOST_TOLD} more"] if len(names) > MOST_TOLD else []
    )  # no client takes a head of any size
    told = ", ".join([*names[:MOST_TOLD], *more])
    exchange.also += ((b"x-gateway-left-out", told.encode()),)
    fields = {"request_id": exchange.request_id, "model": exchange.model}
    log.info("request %s: model '%s' was not given %s", exchange.request_id, exchange.model, told, extra=fields)


def _query(exchange: Exchange) -> dict[str, Any]:
    return dict(parse_qsl(exchange.scope["query_string"].decode("latin-1")))


def _open(
    runs: list[dict[str, Any]], method: str, model: HostedModel, prepared: Prepared, exchange: Exchange
) -> Iterator[Call]:
    """One call, or n of them when the model answers once a call; all are admitted or none.

    Raises:
        Overloaded, Unavailable: the model takes no calls now.
        InvalidJSON: a number in the request is larger than a worker can be told.
        TooLarge: its calls together are larger than all bodies that may wait.
    """
    if len(runs) > 1:
        model.check_room(len(runs))
    scope = http_scope(exchange, model) if method in model.request_methods else None
    request_id, route = exchange.request_id, exchange.route
    req = Req(method, DATA, prepared.stream, "application/json", request_id, False, None, scope, route)
    try:
        body = encode(runs[0])
        if len(runs) > 1:
            check_together(runs, len(body), model.shares.max_bytes)
    except OverflowError as error:
        raise InvalidJSON("the body holds an integer that does not fit 64 bits") from error
    patience = exchange.patience()
    yield model.call(req, body, patience)
    for inputs in runs[1:]:
        yield model.call(req, encode(inputs), patience)


def _stops(inputs: dict[str, Any]) -> tuple[str, ...]:
    """The stop strings of a request, in OpenAI's word or Anthropic's."""
    return tuple(inputs.get("stop") or inputs.get("stop_sequences") or ())


async def _raw_events(
    exchange: Exchange, account: Account, raw: RawStream, batches: Batches, items: list[Any], teller: Teller
) -> Events:
    """The events of a model that frames its own."""
    keep = account.relay().add
    try:
        chunk = raw.feed(items)
        while True:
            if chunk:
                keep(chunk)
                yield chunk
            if raw.failure is not None:
                raise raw.failure
            if (batch := await anext(batches, None)) is None:
                break
            chunk = raw.feed(batch[1])
        if chunk := raw.finish():
            keep(chunk)
            yield chunk
        if raw.failure is not None:
            raise raw.failure
        if raw.is_failed:
            exchange.error = ModelError.code
        account.failed = "error" if raw.is_failed else ""
    except ClientLeft:
        pass
    except Exception as error:
        yield _failure(exchange, account, error, teller)
    finally:
        account.end_call()


def _failure(exchange: Exchange, account: Account, error: Exception, teller: Teller) -> bytes:
    """What a stream ends with that broke off; nothing in it looks finished."""
    account.failed = "error"
    if isinstance(error, RecursionError):
        error = InvalidOutput(TOO_DEEP)
    teller.tell(error)
    return one_line(account.encoder.fail(broke_off(error, exchange)))


def _check_content_type(exchange: Exchange, dialect: Dialect) -> None:
    """Any content type will do without an Origin; a browser's form post must not."""
    if b"origin" in exchange.headers:
        kind = exchange.header(b"content-type").partition(";")[0].strip().lower()
        expected = "multipart/form-data" if dialect.body == "form" else "application/json"
        if kind != expected:
            raise UnsupportedMedia(f"content-type '{kind}' from a browser; send {expected}")
