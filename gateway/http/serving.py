"""The routes of the dialects: a request read, sent to the model, its values encoded as they come.

Up to the first item an error has its real status; after it, it is an event of the stream. One path for streams and
whole answers: the value that comes back and the client's `stream` decide, n > 1 is n calls merged as items come.
"""

from __future__ import annotations

import asyncio
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
from ..errors import GatewayError, InvalidJSON, InvalidOutput, ModelError, Timeout, UnsupportedMedia
from ..questions import count_tokens
from ..spec import Endpoint
from ..wire import DATA, MAX_PAYLOAD, Req, encode
from ..wording import counted
from . import sse
from .body import MAX_IDS, MOST_IDS, BodyReader, decode_object, too_large
from .errors import broke_off
from .exchange import CLIENT_LEFT, UNBUFFERED, Exchange, spawn
from .forms import decode_form
from .kin import look_at
from .misgiven import Teller
from .predict import check_encoding, http_scope, pass_response
from .runs import Batch, Together, check_together, heads, values
from .stored import Stored
from .verbatim import Verbatim
from .waiting import until_ready

if TYPE_CHECKING:
    from ..access import Permits
    from ..hosted import HostedModel
    from ..hub import Hub
    from .metrics import Metrics

log = logging.getLogger("gateway.http")
Events = AsyncGenerator[bytes, None]
Batches = AsyncGenerator[Batch, None]
# Has the tokens counted that the model did not count itself, where that takes no more than so many bytes.
Settle = Callable[[int], Awaitable[None]]
MAX_LATER = 1 << 20  # bytes that are counted behind an answer


class Serving:
    """Answers every endpoint that plugins registered."""

    def __init__(self, hub: Hub, reader: BodyReader, metrics: Metrics) -> None:
        self._hub, self._reader, self._metrics = hub, reader, metrics
        self.stored = Stored(hub)
        self._verbatim = Verbatim(hub)
        self._counting: set[Permits | None] = set()  # whose streams are counted behind their end; None without keys
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
        with contextlib.ExitStack() as held:
            calls = [held.enter_context(call) for call in _open(dialect, method, model, prepared, exchange)]
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
            encoder = dialect.encoder(prepared, context)
            teller = Teller(self._hub.tails, exchange, method, calls)
            held.push(teller.leave)
            try:
                first = await heads(calls)
            except Exception as error:
                self._end_unfinished(exchange, encoder, calls, error)
                raise
            exchange.measure()
            if len(calls) == 1 and first[0].raw:
                await pass_response(exchange, calls[0], first[0])
                return
            settle: Settle = partial(_settle, encoder, model, dialect, prepared, exchange.request_id)
            if turn is not None:
                settle = turn.keeping(settle, encoder, model.name)
            if prepared.stream and encoder.stream_type == SSE:
                # SSE of another method, or with stop strings to look for, is read and not passed on
                passes = len(calls) == 1 and method == endpoint.method and not context.stops
                raw = RawStream(dialect.ending(prepared.n)) if passes else None
                await self._stream(exchange, dialect, encoder, calls, raw, settle, teller)
            elif prepared.stream:
                await self._stream_bytes(exchange, encoder, calls)
            else:
                await self._whole(exchange, encoder, calls, settle)

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

    async def _whole(self, exchange: Exchange, encoder: Encoder, calls: list[Call], settle: Settle) -> None:
        first_at = 0.0
        try:
            async with aclosing(values(calls)) as batches:
                async for run, items in batches:
                    first_at = first_at or time.monotonic()
                    encoder.feed(items, run)
                    if encoder.is_complete:
                        break
                    _check_whole(calls)
        except Exception as error:
            self._end_unfinished(exchange, encoder, calls, error)
            raise
        exchange.end_call()
        await settle(MAX_PAYLOAD)
        body, headers = encoder.whole()
        await exchange.reply(200, body, encoder.content_type, headers)
        first_at = first_at or exchange.ended
        self._count(exchange, encoder, failed=None, first_at=first_at - exchange.started, streamed=False)

    async def _stream(
        self,
        exchange: Exchange,
        dialect: Dialect,
        encoder: Encoder,
        calls: list[Call],
        raw: RawStream | None,
        settle: Settle,
        teller: Teller,
    ) -> None:
        """The first values are encoded before the status goes out: nonsense is an error, not a 200."""
        async with aclosing(values(calls)) as batches:
            first = await anext(batches, None) or (0, [])  # Python 3.11 fails on a default that is a tuple
            opening, held = Opening(dialect.protocol), [*first[1]]
            shows = opening.feed(first[1]) if len(calls) == 1 else "read"
            while shows is None and (batch := await anext(batches, None)) is not None:
                held += batch[1]
                shows = opening.feed(batch[1])
            if raw is not None and (shows or opening.end()) == "pass":
                events = _raw_events(exchange, encoder, raw, batches, held, teller)
            else:
                events = self._events(exchange, encoder, batches, encoder.feed(held, first[0]), settle, teller)
            async with aclosing(events):
                await sse.stream(exchange, events, dialect.ping)
        if exchange.cycle is not None and exchange.cycle.disconnected:
            exchange.status = CLIENT_LEFT

    async def _stream_bytes(self, exchange: Exchange, encoder: Encoder, calls: list[Call]) -> None:
        """A stream without framing, such as audio: an error after its first byte breaks it off."""
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
        self._count(exchange, encoder, failed=None, first_at=None)

    async def _events(
        self, exchange: Exchange, encoder: Encoder, batches: Batches, chunk: bytes, settle: Settle, teller: Teller
    ) -> Events:
        now = time.monotonic
        first_at = last_at = now()
        between = self._metrics.tokens(exchange.model).between
        failed: str | None = "abort"
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
                await settle(MAX_PAYLOAD)
            yield one_line(encoder.finish())
            failed = None
        except ClientLeft:
            pass
        except Exception as error:
            failed = "error"
            yield _failure(exchange, encoder, error, teller)
        finally:
            exchange.end_call()
            if failed is None and not encoder.ends_with_usage and exchange.permits not in self._counting:
                self._counting.add(exchange.permits)
                exchange.counting = spawn(self._count_later(exchange, encoder, first_at - exchange.started, settle))
            else:
                self._count(exchange, encoder, failed, first_at - exchange.started)

    async def _count_later(self, exchange: Exchange, encoder: Encoder, first_at: float, settle: Settle) -> None:
        """Count a stream whose client did not ask how many tokens it had, and does not wait for that.

        It counts for no limit of the caller, who therefore has one at a time, of a bounded size; all else is estimated.
        """
        try:
            await settle(MAX_LATER)
        finally:
            self._counting.discard(exchange.permits)
        self._count(exchange, encoder, None, first_at)

    def _end_unfinished(self, exchange: Exchange, encoder: Encoder, calls: list[Call], error: Exception) -> None:
        """A request that never had an answer: in the words of its route, and counted where that produces tokens."""
        for run, call in enumerate(calls):
            if call.error is error and isinstance(error, GatewayError):
                encoder.retell(error, run)
        if encoder.has_usage:
            finished = self._metrics.tokens(exchange.model).finished
            reason = "abort" if isinstance(error, ClientLeft) else "error"
            finished[reason] = finished.get(reason, 0) + 1

    def _count(
        self, exchange: Exchange, encoder: Encoder, failed: str | None, first_at: float | None, streamed: bool = True
    ) -> None:
        """vLLM's family, for routes that produce tokens. What was not streamed may have come all at once, so it has a
        first token, but no time between tokens."""
        counts = encoder.usage()
        if counts is None:
            return
        prompt, completion, reason = counts
        self._metrics.spent(exchange, prompt, completion)
        tokens = self._metrics.tokens(exchange.model)
        total = exchange.ended - exchange.started
        tokens.e2e.add(total)
        tokens.queue.add(exchange.queued)
        tokens.run.add(max(0.0, total - exchange.queued))
        if first_at is not None and (streamed or completion):
            tokens.first.add(first_at)
            if streamed and completion > 1:
                tokens.per_token.add((total - first_at) / (completion - 1))
        tokens.prompt.add(prompt)
        tokens.generation.add(completion)
        tokens.sums[0] += prompt
        tokens.sums[1] += completion
        finished = failed or ("stop" if reason in ("tool_calls", "function_call", "content_filter") else reason)
        tokens.finished[finished] = tokens.finished.get(finished, 0) + 1


def _check_whole(calls: list[Call]) -> None:
    """What comes item by item, to be answered whole, is bounded as what comes at once is.

    Raises:
        Timeout: it takes longer than any answer may.
        InvalidOutput: it is larger.
    """
    begun = max(call.started for call in calls)  # one that waits for a slot has none
    limit = calls[0].limits.request_timeout
    if asyncio.get_running_loop().time() - begun > limit:
        text = f"the model did not finish its answer within {limit:g} s; a longer one can be streamed"
        raise Timeout(text, cause="request_timeout")
    if sum(call.taken for call in calls) > MAX_PAYLOAD:
        raise InvalidOutput(f"the answer has more than {counted(MAX_PAYLOAD, 'byte')}; a larger one can be streamed")


def _say_left_out(exchange: Exchange, names: tuple[str, ...]) -> None:
    told = ", ".join(names)
    exchange.also += ((b"x-gateway-left-out", told.encode()),)
    fields = {"request_id": exchange.request_id, "model": exchange.model}
    log.info("request %s: model '%s' was not given %s", exchange.request_id, exchange.model, told, extra=fields)


def _query(exchange: Exchange) -> dict[str, Any]:
    return dict(parse_qsl(exchange.scope["query_string"].decode("latin-1")))


def _open(dialect: Dialect, method: str, model: HostedModel, prepared: Prepared, exchange: Exchange) -> Iterator[Call]:
    """One call, or n of them when the model answers once a call; all are admitted or none.

    Raises:
        Overloaded, Unavailable: the model takes no calls now.
        InvalidJSON: a number in the request is larger than a worker can be told.
        TooLarge: its calls together are larger than all bodies that may wait.
    """
    runs = dialect.runs(prepared, model.capabilities)
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


async def _settle(
    encoder: Encoder, model: HostedModel, dialect: Dialect, prepared: Prepared, request_id: str, most: int
) -> None:
    """Real counts of tokens where the model gave none, if it can be asked for them."""
    if not model.counts_tokens:
        return
    asked = encoder.uncounted(dialect.runs(prepared, model.capabilities))
    if asked and (numbers := await count_tokens(model, asked, request_id, most)) is not None:
        encoder.counted(numbers)


def _stops(inputs: dict[str, Any]) -> tuple[str, ...]:
    """The stop strings of a request, in OpenAI's word or Anthropic's."""
    return tuple(inputs.get("stop") or inputs.get("stop_sequences") or ())


async def _raw_events(
    exchange: Exchange, encoder: Encoder, raw: RawStream, batches: Batches, items: list[Any], teller: Teller
) -> Events:
    """The events of a model that frames its own."""
    try:
        chunk = raw.feed(items)
        while True:
            if chunk:
                yield chunk
            if raw.failure is not None:
                raise raw.failure
            if (batch := await anext(batches, None)) is None:
                break
            chunk = raw.feed(batch[1])
        if chunk := raw.finish():
            yield chunk
        if raw.failure is not None:
            raise raw.failure
        if raw.is_failed:
            exchange.error = ModelError.code
    except ClientLeft:
        pass
    except Exception as error:
        yield _failure(exchange, encoder, error, teller)


def _failure(exchange: Exchange, encoder: Encoder, error: Exception, teller: Teller) -> bytes:
    """What a stream ends with that broke off; nothing in it looks finished."""
    teller.tell(error)
    return one_line(encoder.fail(broke_off(error, exchange)))


def _check_content_type(exchange: Exchange, dialect: Dialect) -> None:
    """Any content type will do without an Origin; a browser's form post must not."""
    if b"origin" in exchange.headers:
        kind = exchange.header(b"content-type").partition(";")[0].strip().lower()
        expected = "multipart/form-data" if dialect.body == "form" else "application/json"
        if kind != expected:
            raise UnsupportedMedia(f"content-type '{kind}' from a browser; send {expected}")
