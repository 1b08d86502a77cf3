"""Responses that are kept: what a request goes on from, what is kept of its answer, and the routes to ask for it.

    GET    /v1/responses/{id}                the object
    DELETE /v1/responses/{id}                from now on there is none
    GET    /v1/responses/{id}/input_items    what it was the answer to, earlier items included, page by page

A response belongs to the key that asked for it, and exists for no other. One that failed, was broken off, or that the
model framed itself is not kept. A store that fails is logged and costs no answer, which says "store": false then.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from ..dialects.base import Encoder, take
from ..dialects.events import encode_json
from ..dialects.responses_items import Conversation, ids_of, listed, reference_of
from ..errors import BadRequest, UnknownResponse
from ..responses_store import Kept, TooManyParts
from ..wording import counted
from .exchange import Exchange

if TYPE_CHECKING:
    from ..hub import Hub
    from ..responses_store import ResponsesStore

log = logging.getLogger("gateway.http")
Settle = Callable[[], Awaitable[None]]
LIMIT, MAX_LIMIT = 20, 100  # items of a page
LONGEST = 1 << 15  # items of a conversation: each is read, checked and written anew for every answer
MOST = 1 << 19  # arrays and objects of a conversation, those in texts too: so many are read in about a second
AGAIN = 60.0  # seconds between two lines of the log about what could not be kept
_TRUE = ("true", "1")


class Losses:
    """What could not be kept. On a full disk that is each answer: the log has a line for one of them a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._next, self._untold = clock, -math.inf, 0

    def add(self, request_id: str, error: Exception) -> None:
        if (now := self._clock()) < self._next:
            self._untold += 1
            return
        more = f"; {counted(self._untold, 'response')} since the last such line were not kept" if self._untold else ""
        what = "the response of request %s could not be kept: %s: %s%s"
        log.error(what, request_id, type(error).__name__, error, more, extra={"request_id": request_id})
        self._next, self._untold = now + AGAIN, 0


class Turn:
    """One request of a conversation: what came before it, and what is kept of it."""

    def __init__(self, store: ResponsesStore, exchange: Exchange, fields: dict[str, Any], losses: Losses) -> None:
        self._store, self._exchange, self._losses = store, exchange, losses
        self._previous: str | None = take(fields, "previous_response_id", str)
        self._fields = fields
        self._input: Any = fields.get("input")

    async def begin(self) -> dict[str, Any]:
        """The request, with what it goes on from in front of its input, and items for references to them.

        Raises:
            UnknownResponse: there is no such response for this caller.
            BadRequest: an item would be there twice, or there are too many.
        """
        fields = self._fields if self._store.keeps else {**self._fields, "store": False}
        _check_length(len(self._input) if isinstance(self._input, list) else 1)
        if isinstance(self._input, list) and (named := _references(self._input)):
            self._input = await self._resolved(self._input, named)
            fields = {**fields, "input": self._input}
        if self._previous is None:
            return fields
        chain, gone = await self._store.chain(owner_of(self._exchange), self._previous)
        if gone is not None or not all(self._exchange.sees(kept.model) for kept in chain):
            raise UnknownResponse(
                f"Previous response with id '{(gone or self._previous)[:128]}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        _check_amount(chain)
        earlier = items_of(chain)
        _check_length(len(earlier) + (len(self._input) if isinstance(self._input, list) else 1))
        _check_once(_references(self._fields.get("input")), ids_of(earlier))
        return {**fields, "input": Conversation(earlier, fields.get("input"))}

    async def _resolved(self, given: list[Any], named: list[tuple[int, str]]) -> list[Any]:
        """The input with kept items in the places of what refers to them. One that is unknown stays a reference.

        A class that answers such requests itself may know it; for a chat model it is refused.
        """
        _check_once(named, ids_of(item for item in given if isinstance(item, dict) and reference_of(item) is None))
        try:
            found = await self._store.items(owner_of(self._exchange), [identity for _, identity in named], MOST)
        except TooManyParts:
            raise BadRequest(
                f"the responses of these items hold more than {MOST} arrays and objects; refer to fewer",
                param="input",
                code="invalid_value",
            ) from None
        resolved = list(given)
        for index, identity in named:
            if identity in found and self._exchange.sees(found[identity][0]):
                resolved[index] = found[identity][1]
        return resolved

    def keeping(self, settle: Settle, encoder: Encoder, model: str) -> Settle:
        """`settle`, and then the answer is kept: before its last bytes go out, for the client may go on at once."""

        async def settle_and_keep() -> None:
            await settle()
            record = encoder.record()
            if record is not None and not await self._keep(record, model):
                encoder.not_kept()

        return settle_and_keep

    async def _keep(self, record: dict[str, Any], model: str) -> bool:
        given = listed(self._input)
        ids = ids_of([*given, *record["output"]])
        kept = Kept(record["id"], self._previous, model, encode_json(given), encode_json(record), ids)
        try:
            return await self._store.keep(owner_of(self._exchange), kept)
        except (sqlite3.Error, OSError) as error:
            self._losses.add(self._exchange.request_id, error)
            return False


class Stored:
    """The routes to what was kept."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._store, self._losses = hub, hub.responses, Losses()

    def turn(self, exchange: Exchange, fields: dict[str, Any]) -> Turn:
        return Turn(self._store, exchange, fields, self._losses)

    def handlers(self, rest: str) -> dict[str, Callable[[Exchange], Awaitable[None]]] | None:
        """By method, what answers a path below /v1/responses/; None when nothing does."""
        identity, _, part = rest.partition("/")
        if not identity or identity in ("compact", "input_tokens"):  # operations of OpenAI's that are none of ours
            return None
        if part == "input_items":
            return {"GET": partial(self._input_items, identity)}
        return None if part else {"GET": partial(self._show, identity), "DELETE": partial(self._delete, identity)}

    async def _show(self, identity: str, exchange: Exchange) -> None:
        kept = await self._find(identity, exchange)
        if _query(exchange).get("stream") in _TRUE:
            raise BadRequest(
                "a kept response cannot be streamed; ask for it without 'stream'",
                param="stream",
                code="unsupported_value",
            )
        await exchange.reply(200, kept.response)

    async def _delete(self, identity: str, exchange: Exchange) -> None:
        kept = await self._find(identity, exchange)
        await self._store.delete(owner_of(exchange), kept.id)
        await exchange.reply(200, encode_json({"id": kept.id, "object": "response", "deleted": True}))

    async def _input_items(self, identity: str, exchange: Exchange) -> None:
        """A response whose beginnings are gone still lists what is left."""
        kept = await self._find(identity, exchange)
        page = _page(_query(exchange))
        earlier, _ = await self._store.chain(owner_of(exchange), kept.id)
        earlier = [one for one in earlier if exchange.sees(one.model)]
        await exchange.reply(200, encode_json(page([*items_of(earlier[:-1]), *kept.input_items])))

    async def _find(self, identity: str, exchange: Exchange) -> Kept:
        """The response, if it exists for the caller, and is of the model in the URL if there is one.

        Raises:
            UnknownModel, UnknownResponse: one of them does not.
        """
        named, exchange.model = exchange.model, ""  # questions about an answer are no calls of the model
        model = self._hub.find(named, exchange.sees).name if named else None
        exchange.asked = model or ""
        kept = await self._store.get(owner_of(exchange), identity)
        if kept is None or not exchange.sees(kept.model) or model not in (None, kept.model):
            raise UnknownResponse(f"Response with id '{identity[:128]}' not found.")
        return kept


def owner_of(exchange: Exchange) -> str:
    """Who may see what this request has kept."""
    return "" if exchange.caller is None else exchange.caller.owner


def _references(given: Any) -> list[tuple[int, str]]:
    """The references in an input, each with its place."""
    items = given if isinstance(given, list) else []
    return [(index, identity) for index, item in enumerate(items) if (identity := reference_of(item)) is not None]


def _check_length(items: int) -> None:
    if items > LONGEST:
        raise BadRequest(
            f"the conversation would have {items} items, those of earlier responses included; at most {LONGEST} may be",
            param="input",
            code="invalid_value",
        )


def _check_amount(chain: list[Kept]) -> None:
    """Refuse, before it is read, what few items with very many parts may become."""
    found = sum(kept.parts for kept in chain)
    if found > MOST:
        raise BadRequest(
            f"the earlier responses hold {found} arrays and objects; a conversation may go on from at most {MOST}",
            param="previous_response_id",
            code="invalid_value",
        )


def _check_once(named: list[tuple[int, str]], there: frozenset[str]) -> None:
    """An item stands once in a conversation: said twice, a model would read it twice."""
    seen = set(there)
    for index, identity in named:
        if identity in seen:
            message = f"Duplicate item found with id '{identity[:128]}'; send or refer to it once."
            raise BadRequest(message, param=f"input[{index}].id")
        seen.add(identity)


def items_of(chain: list[Kept]) -> list[dict[str, Any]]:
    return [item for kept in chain for item in (*kept.input_items, *kept.output_items)]


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _query(exchange: Exchange) -> dict[str, str]:
    given = parse_qs(exchange.scope.get("query_string", b"").decode("latin-1"))
    return {name: values[-1] for name, values in given.items()}


def _page(query: dict[str, str]) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """What makes a page of all the items.

    Raises:
        BadRequest: limit or order make no sense.
    """
    text, order = query.get("limit", str(LIMIT)), query.get("order", "desc")
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise BadRequest(f"'limit' must be between 1 and {MAX_LIMIT}, not {text[:32]}", param="limit")
    if order not in ("asc", "desc"):
        raise BadRequest(f"'order' must be asc or desc, not {order[:32]}", param="order")

    def page(items: list[dict[str, Any]]) -> dict[str, Any]:
        items = items if order == "asc" else items[::-1]
        after, before = query.get("after"), query.get("before")
        if after is not None:
            items = items[_index(items, after, "after") + 1 :]
        if before is not None:
            items = items[: _index(items, before, "before")]
        backwards = before is not None and after is None
        shown = items[-limit:] if backwards else items[:limit]
        return {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(items) > limit,
        }

    return page


def _index(items: list[dict[str, Any]], identity: str, name: str) -> int:
    found = next((index for index, item in enumerate(items) if item["id"] == identity), None)
    if found is None:
        raise BadRequest(f"'{name}' is no item of this list: '{identity[:128]}'", param=name)
    return found
