"""The routes of the dialects: a request read, sent to the model, its values encoded as they come.

Up to the first item an error has its real status; after it, it is an event of the stream. One path for streams and
whole answers: the value that comes back and the client's `stream` decide, n > 1 is n calls merged as items come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..call import Call, ClientLeft
from ..dialects.base import Context, Dialect, Encoder, Prepared
from ..errors import GatewayError, Overloaded, UnsupportedMedia
from ..spec import Endpoint
from ..wire import DATA, Req, decode, encode
from . import sse
from .body import BodyReader, decode_object
from .errors import unexpected
from .exchange import Exchange
from .predict import check_encoding, http_scope, pass_response

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub
    from .metrics import Metrics

log = logging.getLogger("gateway.http")


class Serving:
    """Answers every endpoint that plugins registered."""

    def __init__(self, hub: Hub, reader: BodyReader, metrics: Metrics) -> None:
        self._hub, self._reader, self._metrics = hub, reader, metrics
        self._max_body = max(
            [hub.settings.gateway.limits.max_body, *(m.spec.limits.max_body for m in hub.models.values())]
        )
        dialects = hub.plugins.dialects()
        self._handlers: dict[str, Callable[[Exchange], Awaitable[None]]] = {
            endpoint.path: partial(self._serve, endpoint, dialects[endpoint.dialect]) for endpoint in hub.endpoints
        }

    def handler(self, endpoint: Endpoint) -> Callable[[Exchange], Awaitable[None]]:
        return self._handlers[endpoint.path]

    async def _serve(self, endpoint: Endpoint, dialect: Dialect, exchange: Exchange) -> None:
        named, exchange.model = exchange.model, ""
        check_encoding(exchange)
        _check_content_type(exchange)
        body = await exchange.body(self._reader, self._max_body)
        prepared = dialect.read(decode_object(body))
        model = self._hub.find_for(endpoint, named or prepared.model)
        exchange.model = model.name
        shown = prepared.model or named or model.name
        hex_id = f"{random.getrandbits(128):032x}"
        encoder = dialect.encoder(prepared, Context(shown, hex_id, int(time.time())))
        with contextlib.ExitStack() as held:
            calls = self._open(endpoint, model, prepared, exchange, held)
            exchange.watch(partial(_all_left, calls))
            await _first(calls)
            exchange.queued = calls[0].started - calls[0].arrived
            first = calls[0].head
            assert first is not None
            if first.raw:
                await pass_response(exchange, calls[0], first)
            elif prepared.stream:
                await self._stream(exchange, dialect, encoder, calls)
            else:
                await self._whole(exchange, encoder, calls)

    def _open(
        self,
        endpoint: Endpoint,
        model: HostedModel,
        prepared: Prepared,
        exchange: Exchange,
        held: contextlib.ExitStack,
    ) -> list[Call]:
        """One call, or n of them when the model answers once a call; all are admitted or none."""
        runs = [prepared.inputs]
        if prepared.n > 1 and not model.capabilities.supports_n:
            runs = [_run(prepared.inputs, index) for index in range(prepared.n)]
            model.check_room(len(runs))
        req = Req(
            endpoint.method,
            DATA,
            prepared.stream,
            "application/json",
            exchange.request_id,
            False,
            None,
            http_scope(exchange) if endpoint.method in model.request_methods else None,
        )
        try:
            return [held.enter_context(model.call(req, encode(inputs))) for inputs in runs]
        except Overloaded as error:
            self._metrics.rejected(model.name, error.code)
            raise

    async def _whole(self, exchange: Exchange, encoder: Encoder, calls: list[Call]) -> None:
        async for run, items in _values(calls):
            encoder.feed(items, run)
        body, headers = encoder.whole()
        await exchange.reply(200, body, headers=headers)
        self._count(exchange, encoder, calls[0], failed=None, first_at=None)

    async def _stream(self, exchange: Exchange, dialect: Dialect, encoder: Encoder, calls: list[Call]) -> None:
        """The first values are encoded before the status goes out: nonsense is an error, not a 200."""
        values = _values(calls)
        first = await anext(values, None)
        if first is not None and _is_raw(first[1]):
            await sse.stream(exchange, _raw_events(first[1], values), dialect.ping, {})
            return
        chunk = encoder.feed(first[1], first[0]) if first is not None else b""
        events = self._events(exchange, encoder, calls, values, chunk)
        await sse.stream(exchange, events, dialect.ping, {})

    async def _events(
        self,
        exchange: Exchange,
        encoder: Encoder,
        calls: list[Call],
        values: AsyncIterator[tuple[int, list[Any]]],
        chunk: bytes,
    ) -> AsyncIterator[bytes]:
        now = time.monotonic
        first_at = last_at = now()
        between = self._metrics.tokens(exchange.model).between
        failed: str | None = "abort"
        try:
            yield encoder.start() + chunk
            async for run, items in values:
                chunk = encoder.feed(items, run)
                if chunk:
                    moment = now()
                    between.add((moment - last_at) / len(items))
                    last_at = moment
                    yield chunk
            yield encoder.finish()
            failed = None
        except ClientLeft:
            exchange.status = 499
        except GatewayError as error:
            failed = "error"
            log.warning("request %s broke off: %s", exchange.request_id, error.message)
            yield encoder.fail(error)
        except Exception as error:
            failed = "error"
            log.exception("request %s failed", exchange.request_id)
            yield encoder.fail(unexpected(error))
        finally:
            self._count(exchange, encoder, calls[0], failed, first_at - exchange.started)

    def _count(
        self, exchange: Exchange, encoder: Encoder, call: Call, failed: str | None, first_at: float | None
    ) -> None:
        """vLLM's family, for routes that produce tokens."""
        counts = encoder.usage()
        if counts is None:
            return
        prompt, completion, reason = counts
        tokens = self._metrics.tokens(exchange.model)
        total = time.monotonic() - exchange.started
        tokens.e2e.add(total)
        tokens.queue.add(exchange.queued)
        tokens.run.add(max(0.0, total - exchange.queued))
        if first_at is not None:
            tokens.first.add(first_at)
            if completion > 1:
                tokens.per_token.add((total - first_at) / (completion - 1))
        tokens.prompt.add(prompt)
        tokens.generation.add(completion)
        tokens.sums[0] += prompt
        tokens.sums[1] += completion
        finished = failed or ("stop" if reason in ("tool_calls", "function_call", "content_filter") else reason)
        tokens.finished[finished] = tokens.finished.get(finished, 0) + 1


def _run(inputs: dict[str, Any], index: int) -> dict[str, Any]:
    """What one of n runs gets: n is 1 for it, and a seed of its own."""
    run = {**inputs, "n": 1}
    if isinstance(inputs.get("seed"), int):
        run["seed"] = inputs["seed"] + index
    return run


def _all_left(calls: list[Call]) -> None:
    for call in calls:
        call.client_left()


async def _first(calls: list[Call]) -> None:
    if len(calls) == 1:
        await calls[0].first()
    else:
        await asyncio.gather(*(call.first() for call in calls))


async def _values(calls: list[Call]) -> AsyncIterator[tuple[int, list[Any]]]:
    """The values of every run, as they come."""
    if len(calls) == 1:
        call = calls[0]
        assert call.head is not None
        if not call.head.stream:
            yield 0, [decode(call.reply)]
            return
        while (items := await call.take()) is not None:
            yield 0, items
        return
    queue: asyncio.Queue[tuple[int, list[Any] | None, BaseException | None]] = asyncio.Queue()

    async def pump(run: int, call: Call) -> None:
        try:
            async for _, items in _values([call]):
                queue.put_nowait((run, items, None))
            queue.put_nowait((run, None, None))
        except Exception as error:
            queue.put_nowait((run, None, error))

    tasks = [asyncio.create_task(pump(run, call)) for run, call in enumerate(calls)]
    try:
        open_runs = len(calls)
        while open_runs:
            run, items, error = await queue.get()
            if error is not None:
                raise error
            if items is None:
                open_runs -= 1
            else:
                yield run, items
    finally:
        for task in tasks:
            task.cancel()


def _is_raw(items: list[Any]) -> bool:
    """The model frames its own SSE: what it yields goes out as it is, only the terminator is made sure of."""
    first = items[0] if items else None
    return isinstance(first, str | bytes) and (first if isinstance(first, bytes) else first.encode()).startswith(
        (b"data:", b"event:")
    )


async def _raw_events(first: list[Any], values: AsyncIterator[tuple[int, list[Any]]]) -> AsyncIterator[bytes]:
    tail = b""
    try:
        chunk = _joined(first)
        while True:
            tail = (tail + chunk)[-64:]
            yield chunk
            chunk = _joined((await anext(values))[1])
    except StopAsyncIteration:
        if b"[DONE]" not in tail:
            yield b"data: [DONE]\n\n" if tail.endswith(b"\n\n") else b"\n\ndata: [DONE]\n\n"
    except ClientLeft:
        pass
    except GatewayError as error:
        from .errors import body_of

        yield b"data: " + body_of(error, "openai", "") + b"\n\n"


def _joined(items: list[Any]) -> bytes:
    return b"".join(item if isinstance(item, bytes) else str(item).encode() for item in items)


def _check_content_type(exchange: Exchange) -> None:
    """Any content type will do without an Origin; a browser's form post must not."""
    if b"origin" in exchange.headers:
        kind = exchange.header(b"content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise UnsupportedMedia(f"content-type '{kind}' from a browser; send application/json")
