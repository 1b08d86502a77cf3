"""Streamed answers of the dialects: an encoder's server-sent events, events framed by the model, and unframed bytes.

An error after the start of the answer becomes the last event, or breaks the answer off.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from ...dialects.base import Dialect
from ...dialects.event_stream import one_line
from ...dialects.raw import Opening, RawStream
from ...errors import InvalidOutput, ModelError
from ...runners.call import Call
from ...runners.pending import ClientLeft
from .. import sse
from ..answering import UNBUFFERED
from ..errors import broke_off
from ..exchange import CLIENT_LEFT, Exchange
from ..off_loop import AT_ONCE, Beside
from .accounts import Account, Settle
from .calls import Batch, values
from .unusable_outputs import Teller

Events = AsyncGenerator[bytes, None]
Batches = AsyncGenerator[Batch, None]
TOO_DEEP = "the model's answer is nested too deep"  # requests cannot be: bodies of more than 64 levels are refused


async def stream_events(
    exchange: Exchange,
    beside: Beside,
    dialect: Dialect,
    account: Account,
    calls: list[Call],
    raw: RawStream | None,
    settle: Settle,
    teller: Teller,
) -> None:
    """Send server-sent events. The first values are encoded before the status, so invalid output is not a 200."""
    account.is_streamed = True
    async with aclosing(values(calls)) as batches:
        first = await anext(batches, None) or (0, [], 0)  # Python 3.11 fails if the default is a tuple
        account.first_at = time.monotonic()
        opening, held, size = Opening(dialect.protocol), [*first[1]], first[2]
        shows = await beside.do(exchange, size, partial(opening.feed, first[1])) if len(calls) == 1 else "read"
        while shows is None and (batch := await anext(batches, None)) is not None:
            held += batch[1]
            size += batch[2]
            shows = await beside.do(exchange, size, partial(opening.feed, batch[1]))
        taken = sum(call.taken for call in calls)
        if raw is not None and (shows or await beside.do(exchange, size, opening.end)) == "pass":
            chunk = await beside.do(exchange, taken, partial(raw.feed, held))
            events = _raw_events(exchange, beside, account, raw, batches, chunk, teller)
        else:
            chunk = await beside.do(exchange, taken, partial(account.encoder.feed, held, first[0]))
            events = _events(exchange, beside, account, batches, chunk, settle, teller)
        async with aclosing(events):
            await sse.stream(exchange, events, dialect.ping)
    if exchange.cycle is not None and exchange.cycle.disconnected:
        exchange.status = CLIENT_LEFT


async def stream_bytes(exchange: Exchange, beside: Beside, account: Account, calls: list[Call]) -> None:
    """Send a stream without framing, such as audio. An error after its first byte breaks it off."""
    encoder = account.encoder
    async with aclosing(values(calls)) as batches:
        first, last = encoder.start(), b""
        while not first and (batch := await anext(batches, None)) is not None:
            first = await beside.do(exchange, batch[2], partial(encoder.feed, batch[1], batch[0]))
        if not first:
            last = encoder.finish()
        await exchange.start(200, [(b"content-type", encoder.stream_type), UNBUFFERED])
        try:
            if first:
                await exchange.write(first)
                async for number, items, size in batches:
                    if chunk := await beside.do(exchange, size, partial(encoder.feed, items, number)):
                        await exchange.write(chunk)
                last = encoder.finish()
        except Exception:
            exchange.break_off()
            raise
        await exchange.write(last, last=True)
    account.failed = ""


async def _events(
    exchange: Exchange, beside: Beside, account: Account, batches: Batches, chunk: bytes, settle: Settle, teller: Teller
) -> Events:
    encoder, between, now = account.encoder, account.between, time.monotonic
    last_at, taken = account.first_at, len(chunk)
    try:
        yield await beside.do(exchange, account.size, lambda: one_line(encoder.start() + chunk))
        if encoder.failure is not None:
            raise encoder.failure
        while not encoder.is_complete and (batch := await anext(batches, None)) is not None:
            number, items, size = batch
            taken += size
            if size + encoder.held <= AT_ONCE:  # nearly always true, and this is the hottest code
                chunk = encoder.feed(items, number)
            else:
                chunk = await beside.do(exchange, size + encoder.held, partial(encoder.feed, items, number))
            if chunk:
                moment = now()
                between.add((moment - last_at) / len(items))
                last_at = moment
                yield one_line(chunk)
            if encoder.failure is not None:
                raise encoder.failure
        if encoder.ends_with_usage:
            await settle()
        last = await beside.do(exchange, taken, encoder.finish)
        exchange.check_permission()  # it says that the answer is complete
        yield one_line(last)
        account.failed = ""
    except ClientLeft:
        pass
    except Exception as error:
        yield await _failure(exchange, beside, account, error, teller)
    finally:
        account.end_call()


async def _raw_events(
    exchange: Exchange,
    beside: Beside,
    account: Account,
    raw: RawStream,
    batches: Batches,
    chunk: bytes,
    teller: Teller,
) -> Events:
    """Yield the events of a model that frames its own."""
    keep = account.relay().add
    try:
        while True:
            if chunk:
                keep(chunk)
                yield chunk
            if raw.failure is not None:
                raise raw.failure
            if (batch := await anext(batches, None)) is None:
                break
            chunk = await beside.do(exchange, batch[2] + raw.held, partial(raw.feed, batch[1]))
        if chunk := await beside.do(exchange, raw.held, raw.finish):
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
        yield await _failure(exchange, beside, account, error, teller)
    finally:
        account.end_call()


async def _failure(exchange: Exchange, beside: Beside, account: Account, error: Exception, teller: Teller) -> bytes:
    """Return the last event of a failed stream, so that it does not look complete."""
    account.failed = "error"
    if isinstance(error, RecursionError):
        error = InvalidOutput(TOO_DEEP)
    teller.tell(error)
    told = broke_off(error, exchange)  # with the whole request, on some routes
    return await beside.do(None, account.size, lambda: one_line(account.encoder.fail(told)))
