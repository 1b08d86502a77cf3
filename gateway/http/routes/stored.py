"""Stored responses: conversations that continue one, storing answers, and the routes to read them.

    GET    /v1/responses/{id}                the response object
    DELETE /v1/responses/{id}                delete it
    GET    /v1/responses/{id}/input_items    its input items, including earlier ones, in pages

A response belongs to the key that requested it, and does not exist for other keys. A response that failed, broke off,
or was framed by the model itself is not stored. If storing fails, the error is logged and the answer is sent with
"store": false.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from ...dialects.base import Encoder
from ...dialects.events import encode_json
from ...dialects.fields import take
from ...dialects.responses.items import Conversation, check_input, ids_of, listed, reference_of
from ...errors import BadRequest, UnknownResponse
from ...hosting.stored_responses import Found, Kept, TooManyParts
from ...runners.pending import ClientLeft
from ...wording import counted
from ..answering import JSON
from ..exchange import Exchange
from ..off_loop import AT_ONCE, Beside
from .accounts import Settle

if TYPE_CHECKING:
    from ...admission.conversations import Conversations
    from ...hosting.catalog import Catalog
    from ...hosting.stored_responses import ResponsesStore
    from ...runners.call import Call

log = logging.getLogger("gateway.http")
PLACE = "/v1/responses"
LIMIT, MAX_LIMIT = 20, 100  # items in a page
LONGEST = 1 << 15  # items of a conversation: each is read, checked and written again for every answer
MOST = 1 << 19  # arrays and objects of a conversation: read, checked and written again in about a second
MOST_COST = 1_000_000_000  # nanoseconds to read it: about three of the most expensive requests
PIECE = 256 << 10  # bytes of a response that are read at a time: its client may read slowly
AGAIN = 60.0  # seconds between two log lines about responses that could not be stored
_TRUE = ("true", "1")


class Losses:
    """Logs responses that could not be stored, at most one line a minute: a full disk affects every answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._next, self._untold = clock, -math.inf, 0

    def add(self, request_id: str, error: Exception) -> None:
        if (now := self._clock()) < self._next:
            self._untold += 1
            return
        more = f"; {counted(self._untold, 'response')} since the last such line were not stored" if self._untold else ""
        what = "the response of request %s could not be stored: %s: %s%s"
        log.error(what, request_id, type(error).__name__, error, more, extra={"request_id": request_id})
        self._next, self._untold = now + AGAIN, 0


class Turn:
    """One request of a conversation: the items before it, and what is stored of it."""

    def __init__(
        self,
        store: ResponsesStore,
        beside: Beside,
        room: Conversations,
        exchange: Exchange,
        fields: dict[str, Any],
        losses: Losses,
    ) -> None:
        self._store, self._beside, self._exchange, self._losses = store, beside, exchange, losses
        self._previous: str | None = take(fields, "previous_response_id", str)
        self._fields = fields
        self._input: Any = fields.get("input")
        self._named = _references(self._input)
        self._known = frozenset[int]()  # the indices of references that were resolved
        self.has_read = False  # something of a conversation, which is then not held while the calls run
        self._size = 0
        self._room, self._held = room, 0

    def let_go(self) -> None:
        """Stop counting what was read of the conversation: its calls count, or there are none."""
        size, self._held = self._held, 0
        self._room.let_go(size)

    async def _hold(self, previous: str | None) -> None:
        """Wait until there is room for what is to be read."""
        items = [identity for _, identity in self._named]
        size = await self._store.weigh(owner_of(self._exchange), previous, items)
        await self._room.hold(size)
        self._held = size
        if self._exchange.client_is_gone:
            raise ClientLeft

    async def begin(self, size: int) -> tuple[dict[str, Any], int]:
        """Return the request with earlier items before its input and with references resolved, and its size in bytes.

        `size` is the size of the request alone.

        What was read counts until `let_go`.

        Raises:
            ClientLeft: the client left while there was no room for it.
            UnknownResponse: there is no such response for this caller.
            BadRequest: `input` is of another type, an item would occur twice, or there are too many.
        """
        if self._input is not None:
            check_input(self._input)
        fields = self._fields if self._store.keeps else {**self._fields, "store": False}
        _check_length(len(self._input) if isinstance(self._input, list) else 1)
        if self._named or self._previous is not None:
            self.has_read = True
            await self._hold(self._previous)
        if self._named:
            given, self._known = await self._resolved()
            size = max(size, AT_ONCE + 1)  # the items that it refers to may be of any size
            fields = {**fields, "input": given}
        self._size = size
        if self._previous is None:
            return fields, size
        chain, gone = await self._store.chain(owner_of(self._exchange), self._previous)
        if gone is not None or not all(self._exchange.sees(kept.model) for kept in chain):
            raise UnknownResponse(
                f"Previous response with id '{(gone or self._previous)[:128]}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        size += sum(kept.size for kept in chain)
        return await self._beside.do(self._exchange, size, partial(self._behind, chain, fields)), size

    def _behind(self, chain: list[Kept], fields: dict[str, Any]) -> dict[str, Any]:
        """Return the request with the items of these responses before its own."""
        _check_amount(chain)
        earlier = items_of(chain)
        _check_length(len(earlier) + (len(self._input) if isinstance(self._input, list) else 1))
        _check_once(self._named, ids_of(earlier))
        return {**fields, "input": Conversation(earlier, fields.get("input"))}

    async def _resolved(self) -> tuple[list[Any], frozenset[int]]:
        """Return the input with stored items in place of references, and their indices. Unknown references stay.

        A class that answers such requests itself may know them. For a chat model they are refused.
        """
        given, named = self._input, self._named
        _check_once(named, ids_of(item for item in given if isinstance(item, dict) and reference_of(item) is None))
        try:
            found = await self._store.items(
                owner_of(self._exchange), [identity for _, identity in named], (MOST, MOST_COST)
            )
        except TooManyParts:
            raise BadRequest(
                f"the responses of these items hold more than {MOST} arrays and objects, or take long to read; "
                "refer to fewer",
                param="input",
                code="invalid_value",
            ) from None
        resolved = list(given)
        known = [(index, name) for index, name in named if name in found and self._exchange.sees(found[name][0])]
        for index, identity in known:
            resolved[index] = found[identity][1]
        return resolved, frozenset(index for index, _ in known)

    def keeping(self, settle: Settle, encoder: Encoder, model: str, calls: list[Call]) -> Settle:
        """Return a `settle` that also stores the answer, before its last bytes: the client may continue at once."""

        async def settle_and_keep() -> None:
            await settle()
            size = self._size + sum(call.taken for call in calls)
            record = await self._beside.do(None, size, encoder.record)
            if record is not None and not await self._keep(record, model, size):
                encoder.not_kept()

        return settle_and_keep

    async def _keep(self, record: dict[str, Any], model: str, size: int) -> bool:
        """Store an answer. Returns False if it cannot be: also if an item that its input refers to is gone."""
        try:
            given = self._input
            if self._known:  # the items were not held while the model answered
                await self._hold(None)
                given, known = await self._resolved()
                if known != self._known:
                    return False
            kept = await self._beside.do(None, size, partial(self._to_keep, given, record, model))
            return await self._store.keep(owner_of(self._exchange), kept)
        except BadRequest:  # the items are now in responses that are too large to read
            return False
        except (sqlite3.Error, OSError) as error:
            self._losses.add(self._exchange.request_id, error)
            return False
        finally:
            self.let_go()

    def _to_keep(self, given: Any, record: dict[str, Any], model: str) -> Kept:
        items = listed(given)
        ids = ids_of([*items, *record["output"]])
        return Kept(record["id"], self._previous, model, encode_json(items), encode_json(record), ids)


class Stored:
    """The routes for stored responses."""

    def __init__(self, catalog: Catalog, store: ResponsesStore, beside: Beside, room: Conversations) -> None:
        self._catalog, self._store, self._beside, self._losses = catalog, store, beside, Losses()
        self._room = room

    def turn(self, exchange: Exchange, fields: dict[str, Any]) -> Turn:
        return Turn(self._store, self._beside, self._room, exchange, fields, self._losses)

    async def show(self, exchange: Exchange) -> None:
        """Send a response object. A large one is read while it is sent, so that slow clients hold no copies of it."""
        found = await self._find(exchange)
        if _query(exchange).get("stream") in _TRUE:
            raise BadRequest(
                "a stored response cannot be streamed; send the request without 'stream'",
                param="stream",
                code="unsupported_value",
            )
        piece = await self._store.piece(found, 0, PIECE)
        if piece is None:
            raise _unknown(found.id)
        if found.size <= PIECE:
            await exchange.reply(200, piece)
            return
        await exchange.start(200, [(b"content-type", JSON), (b"content-length", str(found.size).encode())])
        for start in range(PIECE, found.size, PIECE):
            await exchange.write(piece)
            if exchange.client_is_gone:
                return
            piece = await self._store.piece(found, start, PIECE)
            if piece is None:
                exchange.break_off()
                raise _unknown(found.id)
        await exchange.write(piece, last=True)

    async def delete(self, exchange: Exchange) -> None:
        found = await self._find(exchange)
        await self._store.delete(owner_of(exchange), found.id)
        await exchange.reply(200, encode_json({"id": found.id, "object": "response", "deleted": True}))

    async def input_items(self, exchange: Exchange) -> None:
        """List the input items. If the start of the conversation is deleted, list the rest."""
        identity = (await self._find(exchange)).id
        page = _page(_query(exchange))
        await exchange.reply(200, await self._listed(exchange, identity, page))

    async def _listed(
        self, exchange: Exchange, identity: str, page: Callable[[list[dict[str, Any]]], dict[str, Any]]
    ) -> bytes:
        owner = owner_of(exchange)
        size = await self._store.weigh(owner, identity, [])
        await self._room.hold(size)
        try:
            earlier, _ = await self._store.chain(owner, identity)
            earlier = [one for one in earlier if exchange.sees(one.model)]
            if not earlier or earlier[-1].id != identity:
                raise _unknown(identity)

            def shown() -> bytes:
                _check_amount(earlier, None)
                return encode_json(page([*items_of(earlier[:-1]), *earlier[-1].input_items]))

            return await self._beside.do(exchange, size, shown)
        finally:
            self._room.let_go(size)

    async def _find(self, exchange: Exchange) -> Found:
        """Find a response, if it exists for the caller and, if the URL names a model, belongs to that model.

        Raises:
            UnknownModel, UnknownResponse: one of them does not exist.
        """
        exchange.counted_for = ""  # reading a stored answer is not a call of the model
        model = self._catalog.find(exchange.named, exchange.sees).name if exchange.named else None
        exchange.asked = model or ""
        identity = exchange.path.partition(f"{PLACE}/")[2].partition("/")[0]
        found = await self._store.find(owner_of(exchange), identity)
        if found is None or not exchange.sees(found.model) or model not in (None, found.model):
            raise _unknown(identity)
        exchange.subject = found.model
        return found


def _unknown(identity: str) -> UnknownResponse:
    return UnknownResponse(f"Response with id '{identity[:128]}' not found.")


def may_be_kept(identity: str) -> bool:
    """Whether it may be the id of a response, and not an OpenAI operation that the gateway lacks."""
    return identity not in ("", "compact", "input_tokens")


def owner_of(exchange: Exchange) -> str:
    """Return the owner of responses that this request stores."""
    return "" if exchange.caller is None else exchange.caller.owner


def _references(given: Any) -> list[tuple[int, str]]:
    """Return the references in an input, each with its index."""
    items = given if isinstance(given, list) else []
    return [(index, identity) for index, item in enumerate(items) if (identity := reference_of(item)) is not None]


def _check_length(items: int) -> None:
    if items > LONGEST:
        raise BadRequest(
            f"the conversation would have {items} items with those of earlier responses; at most {LONGEST} are allowed",
            param="input",
            code="invalid_value",
        )


def _check_amount(chain: list[Kept], param: str | None = "previous_response_id") -> None:
    """Refuse a conversation with too many parts before it is read."""
    parts = [kept.parts for kept in chain]
    found, cost = sum(part[0] for part in parts), sum(part[1] for part in parts)
    if found <= MOST and cost <= MOST_COST:
        return
    what = f"hold {found} arrays and objects" if found > MOST else "take too long to read"
    raise BadRequest(
        f"the earlier responses {what}; a conversation may continue from at most {MOST} arrays and objects, and from "
        "less if they hold very many other values",
        param=param,
        code="invalid_value",
    )


def _check_once(named: list[tuple[int, str]], there: frozenset[str]) -> None:
    """Refuse items that would occur twice in a conversation: the model would read them twice."""
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
    """Return a function that selects a page of all items.

    Raises:
        BadRequest: limit or order are invalid.
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
        raise BadRequest(f"'{name}' is not an item of this list: '{identity[:128]}'", param=name)
    return found
